"""What of a spec a card cannot draw, said in words. Knows no HTTP and no queue."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain

from server.api import fitting
from server.api.schemas import GenerationRequest, SweepRequest
from server.catalog import Card, Catalog
from server.emphasis import read
from server.errors import FieldError, InvalidSpec
from server.spec import (
    DISTILLED,
    DISTILLED_STEPS,
    FROM_NOISE_ONLY,
    MAX_SEED,
    SPACED,
    AnySpec,
    DepthToImage,
    Frozen,
    Hires,
    ImageToImage,
    Inpainting,
    PromptSyntax,
    Refiner,
    Sigmas,
    Sweep,
    Task,
    TextToImage,
    Upload,
    Upscale,
    Upscaler,
)
from server.stages import stages

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters other than tab and line ends, and halves of surrogate pairs."""

FROM_A_PICTURE = (Task.IMAGE_TO_IMAGE, Task.INPAINTING, Task.DEPTH_TO_IMAGE)
TAKEN = {
    "image": (*FROM_A_PICTURE, Task.UPSCALE),
    "mask_image": (Task.INPAINTING,),
    "depth_map": (Task.DEPTH_TO_IMAGE,),
    "strength": FROM_A_PICTURE,
    "padding_mask_crop": (Task.INPAINTING,),
    "keep_outside": (Task.INPAINTING,),
    "noise_level": (Task.UPSCALE,),
}
"""The tasks that have a field which not every task has."""
NEEDED = {
    Task.TEXT_TO_IMAGE: (),
    Task.IMAGE_TO_IMAGE: ("image",),
    Task.INPAINTING: ("image", "mask_image"),
    Task.DEPTH_TO_IMAGE: ("image",),
    Task.UPSCALE: ("image",),
}
PARTS: dict[str, type[Frozen]] = {"hires": Hires, "refiner": Refiner, "upscaler": Upscaler}
"""What follows the first drawing, in order."""


def misplaced(
    asked: GenerationRequest, card: Card, uploads: Mapping[str, Upload]
) -> Iterator[FieldError]:
    """What the task does not know, or lacks, or the card does not offer."""
    task = asked.task
    if asked.model_fields_set & TAKEN.keys() or uploads:
        yield from _not_taken(asked, uploads)
    for name in NEEDED[task]:
        if name not in uploads:
            yield FieldError(name, f"{name}: task {task} needs one")
    if task not in card.tasks:
        offered = ", ".join(card.tasks)
        yield FieldError("task", f"task {task}: {card.name} offers {offered}")
    if asked.sweep is not None:
        yield from _unsweepable(asked, asked.sweep, card)


def _not_taken(asked: GenerationRequest, uploads: Mapping[str, Upload]) -> Iterator[FieldError]:
    for name, tasks in TAKEN.items():
        given = getattr(asked, name) is not None or name in uploads
        if given and asked.task not in tasks:
            able = " or ".join(tasks)
            yield FieldError(name, f"{name}: {asked.task} has none; it is for task {able}")


def refusals(wanted: AnySpec, card: Card, catalog: Catalog) -> Iterator[FieldError]:
    """Everything in `wanted`, but its size and its pictures, that the card or a later one of its
    chain cannot draw."""
    if wanted.sweep is None:
        yield from _amounts(wanted, card)
        yield from _sampling(wanted, card)
    else:
        yield from _swept(wanted, wanted.sweep, card)
    yield from _texts(wanted, card)
    yield from _adapters(wanted, card)
    if wanted.hires or wanted.refiner or wanted.upscaler:
        yield from _chained(wanted, catalog)


def _unsweepable(asked: GenerationRequest, sweep: SweepRequest, card: Card) -> Iterator[FieldError]:
    most, count = card.limits.max_sweep, math.prod(len(values) for _, values in sweep.axes)
    if count > most:
        yield FieldError("sweep", f"sweep: has {count:,} combinations, at most {most} are drawn")
    for name, _ in sweep.axes:
        if name == "strength" and asked.task not in FROM_A_PICTURE:
            yield FieldError("sweep.strength", f"sweep.strength: {asked.task} has no strength")
        if getattr(asked, name) is not None:
            yield FieldError(name, f"{name}: is what the sweep varies, leave it out")
    if asked.num_images is not None:
        yield FieldError("num_images", "num_images: follows from the sweep, leave it out")
    for name in PARTS:
        if getattr(asked, name) is not None:
            yield FieldError(name, f"{name}: cannot be combined with a sweep")


def _amounts(wanted: AnySpec, card: Card) -> Iterator[FieldError]:
    limits = card.limits
    distilled = wanted.sampler in DISTILLED
    most_steps = min(limits.max_steps, DISTILLED_STEPS) if distilled else limits.max_steps
    noise_level = wanted.noise_level if isinstance(wanted, Upscale) else 0
    for name, value, low, high in (
        ("num_images", wanted.num_images, 1, limits.max_images),
        ("num_inference_steps", wanted.num_inference_steps, 1, most_steps),
        ("guidance_scale", wanted.guidance_scale, 0, limits.max_guidance),
        ("clip_skip", wanted.clip_skip, 0, limits.max_clip_skip),
        ("noise_level", noise_level, 0, limits.max_noise_level),
    ):
        if not low <= value <= high:
            rule = f"must be between {low:g} and {high:g}"
            yield FieldError(name, f"{name} {fitting.short(value)}: {rule}")
    if wanted.seed + wanted.num_images - 1 > MAX_SEED:
        last = f"image {fitting.short(wanted.num_images - 1)} would need a seed above {MAX_SEED}"
        yield FieldError("seed", f"seed {wanted.seed}: {last}")
    strength = None if isinstance(wanted, TextToImage | Upscale) else wanted.strength
    steps = min(wanted.num_inference_steps, most_steps)  # more cannot be multiplied, if many more
    # 0 is a wish: the picture through the autoencoder. What rounds to no step is a mistake.
    if strength and int(steps * strength) < 1:
        yield FieldError("strength", f"strength {strength:g}: leaves no step of {steps}")


def texts(wanted: AnySpec) -> dict[str, str]:
    """The prompts of a spec by field; one that SDXL's second encoder reads too stands once."""
    found = {"prompt": wanted.prompt, "negative_prompt": wanted.negative_prompt}
    if wanted.sdxl is not None:
        second = {
            "prompt_2": wanted.sdxl.prompt_2,
            "negative_prompt_2": wanted.sdxl.negative_prompt_2,
        }
        found |= {name: text for name, text in second.items() if text != found[name[:-2]]}
    return found


def _texts(wanted: AnySpec, card: Card) -> Iterator[FieldError]:
    most = card.limits.max_prompt_characters
    for name, text in texts(wanted).items():
        if len(text) > most:
            yield FieldError(name, f"{name}: has {len(text):,} characters, at most {most:,} fit")
        elif found := UNPRINTABLE.search(text):
            where = f"U+{ord(found[0]):04X} at position {found.start()}"
            yield FieldError(name, f"{name}: has a control character, {where}")
        elif wanted.prompt_syntax is PromptSyntax.A1111:
            yield from _brackets(name, text)


def _brackets(name: str, text: str) -> Iterator[FieldError]:
    try:
        read(text, PromptSyntax.A1111)
    except InvalidSpec as error:
        yield FieldError(name, f"{name}: {error.message}")


def _sampling(wanted: AnySpec, card: Card) -> Iterator[FieldError]:
    if wanted.sigmas is not Sigmas.DEFAULT and wanted.sampler not in SPACED:
        able = ", ".join(sorted(SPACED))
        message = f"sigmas {wanted.sigmas}: {wanted.sampler} has no choice; these have: {able}"
        yield FieldError("sigmas", message)
    if wanted.sampler in FROM_NOISE_ONLY and (why := _noised(wanted, card)):
        yield FieldError("sampler", f"sampler {wanted.sampler}: draws from noise only{why}")


def _noised(wanted: AnySpec, card: Card) -> str:
    """Why noise is added to a picture; empty where it is not."""
    if isinstance(wanted, Inpainting):
        # A UNet with channels for the masked picture begins with noise alone, and does nothing but
        # inpaint. Any other is given the picture back, with noise, after every step.
        if card.tasks == (Task.INPAINTING,):
            return "; inpaint at strength 1 with it" if wanted.strength < 1 else ""
        return f", and {card.name} inpaints by adding noise to the picture"
    return ", not from a picture" if isinstance(wanted, ImageToImage | DepthToImage) else ""


def _adapters(wanted: AnySpec, card: Card) -> Iterator[FieldError]:
    most, names = card.limits.max_loras, [lora.name for lora in wanted.loras]
    if len(names) > most:
        yield FieldError("loras", f"loras: has {len(names)}, at most {most} act together")
    for index, name in enumerate(names):
        if name in names[:index]:
            where = f"loras.{index}.name"
            yield FieldError(where, f"{where}: {name!r} is given more than once")


def _swept(wanted: AnySpec, sweep: Sweep, card: Card) -> Iterator[FieldError]:
    """What is wrong with single pictures of it; each fault once."""
    swept, seen = {axis.field for axis in sweep.axes}, set()
    for index, varied in enumerate(sweep.combinations):
        alone = wanted.alone(index)
        for field, message in chain(_amounts(alone, card), _sampling(alone, card)):
            if message not in seen:
                seen.add(message)
                values = ", ".join(f"{name} {value}" for name, value in varied.items())
                where = f"sweep.{field}" if field in swept else field
                yield FieldError(where, f"{message} (in the sweep, with {values})")


def _stretched(wanted: AnySpec, hires: Hires, card: Card) -> Iterator[FieldError]:
    """A larger size may differ in shape by what rounding to the sides' multiple makes of it."""
    off = abs(hires.width * wanted.height - hires.height * wanted.width)
    if off > card.limits.side_multiple * max(wanted.width, wanted.height):
        shape = f"{wanted.width} x {wanted.height}"
        yield FieldError(
            "hires.width", f"hires: {hires.width} x {hires.height} is not the shape of {shape}"
        )


def _chained(wanted: AnySpec, catalog: Catalog) -> Iterator[FieldError]:
    """What the stages after the first cannot draw."""
    if wanted.hires is not None:
        yield from _stretched(wanted, wanted.hires, catalog[wanted.checkpoint])
    parts = [name for name in PARTS if getattr(wanted, name) is not None]
    for part, stage in zip(parts, stages(wanted)[1:], strict=True):
        spec, card = stage.spec, catalog[stage.checkpoint]
        for field, message in chain(
            fitting.wrong_sides(spec.width, spec.height, card),
            _amounts(spec, card),
            _sampling(spec, card),
        ):
            where = f"{part}.{field}" if field in PARTS[part].model_fields else part
            if not (stage.begin and field == "strength"):
                yield FieldError(where, f"{part}: {message}")
