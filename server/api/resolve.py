"""From what a caller said to a spec. Knows cards; knows no HTTP and no queue.

Nothing is clamped, rounded or dropped in silence: what cannot be drawn is refused in words, what is
ignored or adjusted is listed as a warning, and `strict` makes a warning a refusal.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from server.api import chains, fitting, inputs
from server.api.ignored import ignored
from server.api.refusals import misplaced, refusals
from server.api.schemas import GenerationRequest, SweepRequest
from server.catalog import Card, Catalog
from server.errors import FieldError, InvalidSpec
from server.spec import (
    AnySpec,
    Axis,
    DepthToImage,
    ImageToImage,
    Inpainting,
    Lora,
    Sampler,
    SdxlConditioning,
    Sigmas,
    Sweep,
    Task,
    TextToImage,
    Upload,
    Upscale,
    Warn,
)
from server.stages import checkpoints

SPECS: dict[Task, type[AnySpec]] = {
    Task.TEXT_TO_IMAGE: TextToImage,
    Task.IMAGE_TO_IMAGE: ImageToImage,
    Task.INPAINTING: Inpainting,
    Task.DEPTH_TO_IMAGE: DepthToImage,
    Task.UPSCALE: Upscale,
}
KNOWN = {task: frozenset(kind.model_fields) for task, kind in SPECS.items()}
FROM_CARD = (
    "num_inference_steps",
    "guidance_scale",
    "sampler",
    "sigmas",
    "negative_prompt",
    "clip_skip",
    "output_format",
    "deadline_seconds",
    "prompt_syntax",
    "long_prompts",
)
"""Fields of every task whose default is the card's."""

SDXL = tuple(SdxlConditioning.model_fields)
"""These fields of a request, too, bear the names of diffusers' arguments."""

Uploads = Mapping[str, Upload]
Fields = dict[str, Any]


def to_spec(
    asked: GenerationRequest,
    card: Card,
    catalog: Catalog,
    uploads: Uploads,
    brightest: int = inputs.WHITE,
) -> tuple[AnySpec, tuple[Warn, ...]]:
    """The complete spec, and what of the request it ignores or adjusts. `brightest` is the
    brightest pixel of the mask, if there is one.

    What no card could draw was refused when the request was read.

    Raises:
        InvalidSpec: names every field that this card cannot draw.
    """
    refused = [*misplaced(asked, card, uploads), *chains.unfit(asked, card, catalog)]
    sides = list(fitting.wrong_size(asked, card, uploads.get("image")))
    if refused or (sides and asked.hires is not None):  # there is nothing to enlarge
        raise InvalidSpec.of(refused or sides)
    wanted = _wanted(asked, card, catalog, uploads)
    unfit = inputs.unfit(wanted, card, brightest)
    if refused := [*sides, *refusals(wanted, card, catalog), *unfit]:
        raise InvalidSpec.of(refused)
    warnings = tuple(
        chain(
            fitting.adjusted(asked, wanted),
            ignored(asked, wanted, catalog),
            inputs.vain(wanted, brightest),
        )
    )
    if asked.strict and warnings:
        raise InvalidSpec.of([FieldError(w.field or "", w.message) for w in warnings])
    return wanted, warnings


def _wanted(asked: GenerationRequest, card: Card, catalog: Catalog, uploads: Uploads) -> AnySpec:
    """The card's defaults under what was asked; nothing is checked yet."""
    kind = SPECS[asked.task]
    given = ((name, getattr(asked, name)) for name in asked.model_fields_set & KNOWN[asked.task])
    said = {name: value for name, value in given if value is not None}
    width, height = fitting.size(asked, card, uploads.get("image"))
    fields: Fields = {
        **{name: getattr(card.defaults, name) for name in FROM_CARD},
        **dict(_own(asked.task, card)),
        "num_images": 1,
        "guidance_rescale": 0.0,
        "eta": 0.0,
        "seed": secrets.randbits(32),
        "priority": 0,
        **said,
        **uploads,
        "width": width,
        "height": height,
        "checkpoint": card.name,
    }
    if asked.loras:
        fields["loras"] = tuple(Lora(name=lora.name, scale=lora.scale) for lora in asked.loras)
    if asked.sweep is not None:
        fields |= _swept(asked.sweep)
    if asked.sigmas is None:
        swept = asked.sweep.sampler if asked.sweep is not None else None
        fields["sigmas"] = _spacing(swept or [fields["sampler"]], card)
    fields |= chains.resolved(asked, fields, card, catalog)
    if any(catalog[name].family == "sdxl" for name in chains.checkpoints(asked, card)):
        fields["sdxl"] = _sdxl(asked, fields, card)
    wanted = kind(**fields)
    if any(catalog[name].safety.hides for name in checkpoints(wanted)):
        return wanted.model_copy(update={"previews": 0})
    return wanted


def _spacing(samplers: Sequence[Sampler], card: Card) -> Sigmas:
    """The card's, where every one of them has a choice."""
    found = {chains.spacing(each, card) for each in samplers}
    return found.pop() if len(found) == 1 else Sigmas.DEFAULT


def _own(task: Task, card: Card) -> Iterator[tuple[str, Any]]:
    """Defaults of the fields that not every task has."""
    defaults = card.defaults
    if task is Task.INPAINTING:
        yield "strength", defaults.inpainting_strength
        yield "padding_mask_crop", None
        yield "keep_outside", True
    elif task in (Task.IMAGE_TO_IMAGE, Task.DEPTH_TO_IMAGE):
        yield "strength", defaults.strength
        if task is Task.DEPTH_TO_IMAGE:
            yield "depth_map", None
    elif task is Task.UPSCALE:
        yield "noise_level", defaults.noise_level


def _swept(sweep: SweepRequest) -> Fields:
    """The sweep, as many images as it has pictures, and the first picture's values as the spec's
    own."""
    made = Sweep(
        axes=tuple(
            Axis(field=name, values=tuple(_plain(value) for value in values))  # type: ignore[arg-type]
            for name, values in sweep.axes
        )
    )
    first = {name: values[0] for name, values in sweep.axes}
    return first | {"sweep": made, "num_images": len(made.combinations)}


def _plain(value: float | str) -> float | int | str:
    return value.value if isinstance(value, Sampler) else value


def _sdxl(asked: GenerationRequest, fields: Fields, card: Card) -> SdxlConditioning:
    """As diffusers' pipelines fill it in: the size drawn, uncropped, for both prompts."""
    size = fields["width"], fields["height"]
    defaults = card.defaults
    made: Fields = {
        "prompt_2": fields["prompt"],
        "negative_prompt_2": fields["negative_prompt"],
        "original_size": size,
        "crops_coords_top_left": (0, 0),
        "target_size": size,
        "aesthetic_score": defaults.aesthetic_score,
        "negative_aesthetic_score": defaults.negative_aesthetic_score,
    } | {name: value for name in SDXL if (value := getattr(asked, name)) is not None}
    for name in ("original_size", "crops_coords_top_left", "target_size"):
        made.setdefault(f"negative_{name}", made[name])
    return SdxlConditioning(**made)
