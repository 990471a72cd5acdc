"""What a caller may say, and how it becomes a spec. Knows cards; knows no HTTP and no queue.

Nothing is clamped, rounded or dropped: what cannot be drawn is refused in words, what would be
ignored is listed as a warning, and `strict` makes a warning a refusal.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from itertools import chain
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.catalog import Card
from server.errors import FieldError, InvalidSpec
from server.spec import (
    DISTILLED,
    DISTILLED_STEPS,
    MAX_SEED,
    SPACED,
    TAKES_ETA,
    OutputFormat,
    Sampler,
    Sigmas,
    Task,
    TextToImage,
    Warn,
)

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters other than tab and line ends, and halves of surrogate pairs."""

EXAMPLE: dict[str, Any] = {
    "prompt": "a red circle on a blue background",
    "num_inference_steps": 20,
    "guidance_scale": 4.0,
    "seed": 7,
}


class Asked(BaseModel):
    """A request body: unknown fields are an error, and no type is guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class GenerationRequest(Asked):
    """What to draw. Every field but `prompt` may be left out or null, and then comes from the
    checkpoint's card."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    task: Task = Field(Task.TEXT_TO_IMAGE, description="What kind of generation this is.")
    checkpoint: str | None = Field(
        None, description="A name from `GET /v1/checkpoints`; the server's default if left out."
    )
    prompt: str = Field(description="What the picture should show.")
    negative_prompt: str | None = Field(
        None, description="What it should not show; needs a guidance_scale above 1."
    )
    width: int | None = Field(None, description="Pixels; the card's native size by default.")
    height: int | None = Field(None, description="Pixels; the card's native size by default.")
    num_images: int | None = Field(None, ge=1, description="How many pictures; 1 by default.")
    num_inference_steps: int | None = Field(None, ge=1, description="Denoising steps.")
    guidance_scale: float | None = Field(
        None,
        ge=0,
        description="How strongly the prompt is followed; 1 and below turn guidance off.",
    )
    guidance_rescale: float | None = Field(
        None, ge=0, le=1, description="Rescales guided noise against over-exposure; 0 is off."
    )
    eta: float | None = Field(
        None, ge=0, le=1, description="Noise added again in each step, by ddim and tcd only."
    )
    sampler: Sampler | None = Field(None, description="The card's own by default.")
    sigmas: Sigmas | None = Field(
        None, description="How noise levels are spaced; not every sampler has a choice."
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Image i is drawn with seed + i. Drawn at random, and reported, by default.",
    )
    clip_skip: int | None = Field(
        None, ge=0, description="Text encoder layers left out, counted from the last."
    )
    output_format: OutputFormat | None = Field(None, description="png by default.")
    priority: int | None = Field(
        None,
        ge=-10,
        le=10,
        description="Higher steps sooner among the pictures that a worker holds; the queue itself "
        "is first come, first served.",
    )
    deadline_seconds: float | None = Field(
        None,
        gt=0,
        le=604_800,
        description="It expires when it is not finished so long after it was accepted.",
    )
    strict: bool = Field(
        False,
        description="Refuse the request instead of warning; what only the worker sees, such as a "
        "prompt that it would cut, fails the generation.",
    )

    def to_spec(self, card: Card) -> tuple[TextToImage, tuple[Warn, ...]]:
        """The complete spec, and what of the request it ignores.

        What no card could draw was refused when the request was read.

        Raises:
            InvalidSpec: names every field that this card cannot draw.
        """
        wanted = TextToImage(**self._complete(card))
        if refused := tuple(refusals(self.task, wanted, card)):
            raise InvalidSpec.of(refused)
        warnings = tuple(ignored(wanted))
        if self.strict and warnings:
            raise InvalidSpec.of([FieldError(w.field or "", w.message) for w in warnings])
        return wanted, warnings

    def _complete(self, card: Card) -> dict[str, Any]:
        """The card's defaults under what was asked; nothing is checked yet."""
        asked = {k: v for k, v in self if v is not None}
        complete = {
            **vars(card.defaults),
            "width": card.native_size,
            "height": card.native_size,
            "num_images": 1,
            "guidance_rescale": 0.0,
            "eta": 0.0,
            "seed": secrets.randbits(32),
            "priority": 0,
            **asked,
            "checkpoint": card.name,
        }
        if self.sigmas is None and complete["sampler"] not in SPACED:
            complete["sigmas"] = Sigmas.DEFAULT
        return complete


def refusals(task: Task, wanted: TextToImage, card: Card) -> Iterator[FieldError]:
    """Everything in `wanted` that the card cannot draw."""
    if task not in card.tasks:
        offered = ", ".join(card.tasks)
        yield FieldError("task", f"task {task}: {card.name} offers {offered}")
    yield from chain(
        _size(wanted, card), _amounts(wanted, card), _texts(wanted, card), _sampling(wanted)
    )


def _size(wanted: TextToImage, card: Card) -> Iterator[FieldError]:
    limits, sides = card.limits, {"width": wanted.width, "height": wanted.height}
    wrong = [
        name
        for name, side in sides.items()
        if side % limits.side_multiple or not limits.min_side <= side <= limits.max_side
    ]
    for name in wrong:
        rule = f"a multiple of {limits.side_multiple} between {limits.min_side} and"
        yield FieldError(name, f"{name} {_short(sides[name])}: must be {rule} {limits.max_side}")
    if not wrong and wanted.width * wanted.height > limits.max_pixels:
        size = f"{wanted.width} x {wanted.height}"
        most = f"{card.name} draws at most {limits.max_pixels:,} pixels"
        yield FieldError("width", f"width x height {size}: {most}")


def _amounts(wanted: TextToImage, card: Card) -> Iterator[FieldError]:
    limits = card.limits
    distilled = wanted.sampler in DISTILLED
    most_steps = min(limits.max_steps, DISTILLED_STEPS) if distilled else limits.max_steps
    for name, value, low, high in (
        ("num_images", wanted.num_images, 1, limits.max_images),
        ("num_inference_steps", wanted.num_inference_steps, 1, most_steps),
        ("guidance_scale", wanted.guidance_scale, 0, limits.max_guidance),
        ("clip_skip", wanted.clip_skip, 0, limits.max_clip_skip),
    ):
        if not low <= value <= high:
            rule = f"must be between {low:g} and {high:g}"
            yield FieldError(name, f"{name} {_short(value)}: {rule}")
    if wanted.seed + wanted.num_images - 1 > MAX_SEED:
        last = f"image {_short(wanted.num_images - 1)} would need a seed above {MAX_SEED}"
        yield FieldError("seed", f"seed {wanted.seed}: {last}")


def _texts(wanted: TextToImage, card: Card) -> Iterator[FieldError]:
    most = card.limits.max_prompt_characters
    for name in ("prompt", "negative_prompt"):
        text: str = getattr(wanted, name)
        if len(text) > most:
            yield FieldError(name, f"{name}: has {len(text):,} characters, at most {most:,} fit")
        elif found := UNPRINTABLE.search(text):
            where = f"U+{ord(found[0]):04X} at position {found.start()}"
            yield FieldError(name, f"{name}: has a control character, {where}")


def _sampling(wanted: TextToImage) -> Iterator[FieldError]:
    if wanted.sigmas is not Sigmas.DEFAULT and wanted.sampler not in SPACED:
        able = ", ".join(sorted(SPACED))
        message = f"sigmas {wanted.sigmas}: {wanted.sampler} has no choice; these have: {able}"
        yield FieldError("sigmas", message)


def ignored(wanted: TextToImage) -> Iterator[Warn]:
    """Everything in `wanted` that would change nothing, although it was asked for."""
    if wanted.eta and wanted.sampler not in TAKES_ETA:
        able = " and ".join(sorted(TAKES_ETA))
        yield _warning("eta", f"eta {wanted.eta:g}: {wanted.sampler} ignores it; {able} use it")
    if wanted.guided:
        return
    unguided = f"is ignored at guidance_scale {wanted.guidance_scale:g}, which is not above 1"
    if wanted.negative_prompt:
        yield _warning("negative_prompt", f"negative_prompt: {unguided}")
    if wanted.guidance_rescale:
        yield _warning("guidance_rescale", f"guidance_rescale: {unguided}")


def _warning(field: str, message: str) -> Warn:
    return Warn(code=f"{field}_ignored", message=message, field=field)


def _short(value: float) -> str:
    """A number as it was sent, unless somebody sent four hundred digits."""
    text = str(value)
    return text if len(text) <= 24 else f"of {len(text)} digits"
