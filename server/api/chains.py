"""What a checkpoint hands on: a second drawing at a larger size, a refiner, an upscaler.

Checks that the cards fit each other and completes what was left out; sizes and amounts are checked
with the rest of the spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, TypeVar

from server.api.schemas import (
    GenerationRequest,
    HiresRequest,
    RefinerRequest,
    SecondRequest,
    UpscalerRequest,
)
from server.catalog import Card, Catalog
from server.errors import FieldError
from server.spec import (
    SPACED,
    Enlarged,
    Hires,
    Refiner,
    Sampler,
    Sigmas,
    Task,
    Upscaler,
)

HIRES_SCALE = 2.0
HIRES_STRENGTH = 0.7
SWITCH_AT = 0.8
DRAWN_OVER = (Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.DEPTH_TO_IMAGE)
"""Tasks whose picture may be drawn over as a whole: what inpainting keeps would not be kept."""

SIDES = ("width", "height")

Fields = Mapping[str, Any]
N = TypeVar("N", int, float)


def checkpoints(asked: GenerationRequest, card: Card) -> Iterator[str]:
    """Whose conditioning the spec must have; an upscaler reads none but the prompt."""
    yield card.name
    if asked.refiner is not None:
        yield asked.refiner.checkpoint


def unfit(asked: GenerationRequest, card: Card, catalog: Catalog) -> Iterator[FieldError]:
    """Cards that do not exist, or do not go together."""
    for name in ("hires", "refiner"):
        if getattr(asked, name) is not None and asked.task not in DRAWN_OVER:
            able = ", ".join(DRAWN_OVER)
            yield FieldError(name, f"{name}: cannot follow task {asked.task}; it can follow {able}")
    if asked.hires is not None:
        yield from _unfit_hires(asked.hires, card)
    if asked.refiner is not None:
        yield from _unfit_second("refiner", asked.refiner, Task.IMAGE_TO_IMAGE, catalog)
        yield from _unfit_ensemble(asked, asked.refiner, card, catalog)
    if asked.upscaler is not None:
        yield from _unfit_second("upscaler", asked.upscaler, Task.UPSCALE, catalog)


def resolved(
    asked: GenerationRequest, fields: Fields, card: Card, catalog: Catalog
) -> dict[str, Hires | Refiner | Upscaler]:
    """The parts that were asked for, complete. `fields` are those of the first drawing."""
    made: dict[str, Hires | Refiner | Upscaler] = {}
    if asked.hires is not None:
        made["hires"] = _hires(asked.hires, fields, card)
    if asked.refiner is not None:
        made["refiner"] = _refiner(asked.refiner, fields, catalog[asked.refiner.checkpoint])
    if asked.upscaler is not None:
        made["upscaler"] = _upscaler(asked.upscaler, catalog[asked.upscaler.checkpoint])
    return made


def spacing(sampler: Sampler, card: Card) -> Sigmas:
    """The card's, where the sampler has a choice."""
    return card.defaults.sigmas if sampler in SPACED else Sigmas.DEFAULT


def _unfit_hires(hires: HiresRequest, card: Card) -> Iterator[FieldError]:
    if Task.IMAGE_TO_IMAGE not in card.tasks:
        rule = "needs a checkpoint that draws over a picture (image-to-image)"
        yield FieldError("hires", f"hires: {rule}, and {card.name} does not")
    if (hires.width is None) != (hires.height is None):
        missing = "height" if hires.height is None else "width"
        yield FieldError(f"hires.{missing}", f"hires.{missing}: is needed with the other side")
    if hires.width is not None and hires.scale is not None:
        yield FieldError("hires.scale", "hires.scale: give either it or width and height")


def _unfit_second(
    part: str, second: SecondRequest, task: Task, catalog: Catalog
) -> Iterator[FieldError]:
    field = f"{part}.checkpoint"
    catalog.check_open(second.checkpoint)
    if second.checkpoint not in catalog:
        able = [name for name, card in catalog.items() if task in card.tasks]
        known = ", ".join(able) or "none"
        message = f"there is no checkpoint {second.checkpoint[:80]!r}; these can: {known}"
        yield FieldError(field, f"{field}: {message}")
    elif task not in (tasks := catalog[second.checkpoint].tasks):
        offered = ", ".join(tasks)
        message = f"{part}s need task {task}, {second.checkpoint} offers {offered}"
        yield FieldError(field, f"{field}: {message}")


def _unfit_ensemble(
    asked: GenerationRequest, refiner: RefinerRequest, card: Card, catalog: Catalog
) -> Iterator[FieldError]:
    """Noisy latents go from one to the other: both must mean the same by them."""
    if _switch_at(refiner) == 1 or refiner.checkpoint not in catalog:
        return
    second = catalog[refiner.checkpoint]
    if Task.IMAGE_TO_IMAGE not in second.tasks:
        return
    if second.family != card.family:
        message = (
            f"{second.name} is of family {second.family} and cannot go on with the latents of "
            f"{card.name}, of family {card.family}; say strength to refine the finished picture"
        )
        yield FieldError("refiner.checkpoint", f"refiner.checkpoint: {message}")
    first = asked.sampler or card.defaults.sampler
    spaced = asked.sigmas or spacing(first, card)
    for name, said, base in (
        ("sampler", refiner.sampler, first),
        ("sigmas", refiner.sigmas, spaced),
    ):
        if said not in (None, base):
            why = f"must be {base}, as in the first part of the schedule that it goes on with"
            yield FieldError(f"refiner.{name}", f"refiner.{name} {said}: {why}")


def _switch_at(refiner: RefinerRequest) -> float:
    if refiner.switch_at is not None:
        return refiner.switch_at
    return SWITCH_AT if refiner.strength is None else 1.0


def _hires(asked: HiresRequest, fields: Fields, card: Card) -> Hires:
    multiple = card.limits.side_multiple
    scale = Fraction(str(asked.scale or HIRES_SCALE))  # 1.1 times 640 is 704, not a hair less
    width, height = (int(fields[side] * scale / multiple) * multiple for side in SIDES)
    return Hires(
        width=asked.width or width,
        height=asked.height or height,
        enlarged=asked.enlarged or Enlarged.LATENTS,
        strength=asked.strength or HIRES_STRENGTH,
        num_inference_steps=asked.num_inference_steps or fields["num_inference_steps"],
    )


def _refiner(asked: RefinerRequest, fields: Fields, card: Card) -> Refiner:
    """Of an ensemble, steps and sampler are those of the base: it is one schedule."""
    switch_at = _switch_at(asked)
    ensemble, defaults = switch_at < 1, card.defaults
    steps = fields["num_inference_steps"] if ensemble else defaults.num_inference_steps
    sampler = asked.sampler or (fields["sampler"] if ensemble else defaults.sampler)
    sigmas = fields["sigmas"] if ensemble else spacing(sampler, card)
    return Refiner(
        checkpoint=card.name,
        switch_at=switch_at,
        strength=asked.strength or defaults.strength,
        num_inference_steps=asked.num_inference_steps or steps,
        guidance_scale=_said(asked.guidance_scale, defaults.guidance_scale),
        sampler=sampler,
        sigmas=asked.sigmas or sigmas,
    )


def _upscaler(asked: UpscalerRequest, card: Card) -> Upscaler:
    defaults = card.defaults
    sampler = asked.sampler or defaults.sampler
    return Upscaler(
        checkpoint=card.name,
        noise_level=_said(asked.noise_level, defaults.noise_level),
        num_inference_steps=asked.num_inference_steps or defaults.num_inference_steps,
        guidance_scale=_said(asked.guidance_scale, defaults.guidance_scale),
        sampler=sampler,
        sigmas=asked.sigmas or spacing(sampler, card),
    )


def _said(value: N | None, default: N) -> N:
    return default if value is None else value
