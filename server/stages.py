"""From a generation's spec to what each checkpoint draws of it. A pure function of the spec.

base ──▶ hires (the same checkpoint) ──▶ refiner ──▶ upscaler; most generations have the base alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeVar

from pydantic import Field

from server.spec import (
    TWO_CALLS,
    AnySpec,
    Axis,
    Enlarged,
    Frozen,
    Hires,
    ImageToImage,
    Refiner,
    SdxlConditioning,
    Size,
    Spec,
    Sweep,
    Upscale,
    Upscaler,
)

DrawnOver = TypeVar("DrawnOver", ImageToImage, Upscale)

UPSCALED = 4
"""How many times larger an upscaler's picture is than its input, each side."""


class Handover(StrEnum):
    """What one stage gives to the next, for each image."""

    NOTHING = "nothing"
    LATENTS = "latents"
    PICTURES = "pictures"


class Stage(Frozen):
    """What one checkpoint draws of a generation. Its spec has no stages of its own."""

    spec: AnySpec
    begin: float = Field(default=0.0, ge=0, le=1, description="Share of the schedule skipped.")
    end: float = Field(default=1.0, ge=0, le=1, description="Share of the schedule to stop at.")
    takes: Handover = Handover.NOTHING
    gives: Handover = Handover.PICTURES

    @property
    def checkpoint(self) -> str:
        """Whose worker draws it."""
        return self.spec.checkpoint

    @property
    def expected_steps(self) -> int:
        """About how many UNet calls it needs, over all its images."""
        if self.spec.sweep is None:
            return self.spec.num_images * self._calls(self.spec)
        images = map(self.spec.alone, range(self.spec.num_images))
        return sum(map(self._calls, images))

    def _calls(self, image: Spec) -> int:
        share = (self.end - self.begin) * (1.0 if self.begin else getattr(image, "strength", 1.0))
        steps = round(share * image.num_inference_steps)
        return 2 * steps - 1 if steps and image.sampler in TWO_CALLS else steps


def checkpoints(spec: AnySpec) -> tuple[str, ...]:
    """Whose workers it needs, in order, each once. Cheaper than `stages`."""
    chained = (spec, spec.refiner, spec.upscaler)
    return tuple(dict.fromkeys(each.checkpoint for each in chained if each is not None))


def num_stages(spec: AnySpec) -> int:
    """How many stages it has. Cheaper than `stages`."""
    return 1 + sum(each is not None for each in (spec.hires, spec.refiner, spec.upscaler))


def stages(spec: AnySpec) -> tuple[Stage, ...]:
    """What is drawn, in order; at least one stage."""
    if num_stages(spec) == 1:
        return (Stage(spec=spec),)
    drawn = [Stage(spec=_alone(spec))]
    if spec.hires is not None:
        drawn.append(_hires(spec, spec.hires))
    if spec.refiner is not None:
        drawn.append(_refined(drawn[-1].spec, spec.refiner))
    if spec.upscaler is not None:
        drawn.append(_upscaled(drawn[-1].spec, spec.upscaler))
    return _joined(drawn)


def shown_after(previews: int, steps: int) -> tuple[int, ...]:
    """After how many of its steps a picture is shown: evenly spread, never after the last."""
    times = max(0, min(previews, steps - 1))
    return tuple(number * steps // (times + 1) for number in range(1, times + 1))


def final_size(spec: AnySpec) -> tuple[int, int]:
    """Width and height of the finished pictures."""
    last = stages(spec)[-1].spec
    return last.width, last.height


def _alone(spec: AnySpec) -> AnySpec:
    return spec.model_copy(update={"hires": None, "refiner": None, "upscaler": None})


def _hires(spec: AnySpec, hires: Hires) -> Stage:
    larger = {
        "width": hires.width,
        "height": hires.height,
        "num_inference_steps": hires.num_inference_steps,
        "sdxl": spec.sdxl and _resized(spec.sdxl, (spec.width, spec.height), hires),
    }
    drawn = _image_to_image(spec, hires.strength, larger)
    latents = hires.enlarged is Enlarged.LATENTS
    return Stage(spec=drawn, takes=Handover.LATENTS if latents else Handover.PICTURES)


def _refined(before: Spec, refiner: Refiner) -> Stage:
    """An ensemble's refiner goes on with the noisy latents; else it draws over the picture."""
    ensemble = refiner.switch_at < 1
    drawn = _image_to_image(before, refiner.strength, _own(refiner) | {"clip_skip": 0})
    return Stage(
        spec=drawn,
        begin=refiner.switch_at if ensemble else 0.0,
        takes=Handover.LATENTS if ensemble else Handover.PICTURES,
    )


def _upscaled(before: Spec, upscaler: Upscaler) -> Stage:
    fields = _common(before) | _own(upscaler) | {"clip_skip": 0, "sdxl": None}
    fields |= {"width": UPSCALED * before.width, "height": UPSCALED * before.height}
    drawn = Upscale(**fields, image=None, noise_level=upscaler.noise_level)
    return Stage(spec=_swept_elsewhere(drawn, _own(upscaler)), takes=Handover.PICTURES)


def _own(second: Refiner | Upscaler) -> dict[str, Any]:
    """What a checkpoint further down the chain decides for itself; adapters of the first do not
    fit it."""
    return {
        "checkpoint": second.checkpoint,
        "num_inference_steps": second.num_inference_steps,
        "guidance_scale": second.guidance_scale,
        "sampler": second.sampler,
        "sigmas": second.sigmas,
        "loras": (),
        "vae": "",
    }


def _image_to_image(before: Spec, strength: float, changes: dict[str, Any]) -> ImageToImage:
    drawn = ImageToImage(**(_common(before) | changes), image=None, strength=strength)
    return _swept_elsewhere(drawn, changes | {"strength": strength})


def _common(spec: Spec) -> dict[str, Any]:
    """The fields that every task has, but the task."""
    chained = {"task", "hires", "refiner", "upscaler"}
    return {name: getattr(spec, name) for name in Spec.model_fields if name not in chained}


def _swept_elsewhere(drawn: DrawnOver, own: dict[str, Any]) -> DrawnOver:
    """A sweep does not vary what this stage decides for itself: there its own value stands for
    each of the axis, so that image i still has its place among the combinations."""
    if drawn.sweep is None:
        return drawn
    axes = tuple(_held(axis, drawn, own) for axis in drawn.sweep.axes)
    return drawn.model_copy(update={"sweep": Sweep(axes=axes)})


def _held(axis: Axis, drawn: Spec, own: dict[str, Any]) -> Axis:
    known = axis.field in type(drawn).model_fields
    if known and axis.field not in own:
        return axis
    field = axis.field if known else "num_inference_steps"  # which every chained stage owns
    return Axis(field=field, values=(getattr(drawn, field),) * len(axis.values))


def _resized(sdxl: SdxlConditioning, before: Size, hires: Hires) -> SdxlConditioning:
    """Sizes that told of the smaller picture tell of the larger one; what the caller said
    otherwise stays."""
    sizes = ("original_size", "target_size", "negative_original_size", "negative_target_size")
    larger = {name: (hires.width, hires.height) for name in sizes if getattr(sdxl, name) == before}
    return sdxl.model_copy(update=larger)


def _joined(drawn: list[Stage]) -> tuple[Stage, ...]:
    """Each stage gives what the next one takes, and an ensemble's base stops where it begins."""
    for i, following in enumerate(drawn[1:]):
        changes: dict[str, Any] = {"gives": following.takes}
        if following.begin:
            changes["end"] = following.begin
        drawn[i] = drawn[i].model_copy(update=changes)
    return tuple(drawn)
