"""What a spec is made of besides plain numbers: pictures sent, adapters, later stages, sweeps."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.spec.words import Enlarged, Sampler, Sigmas

ADAPTER_NAME = r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,127}$"
"""A file's name without its suffix; never a path."""


class Frozen(BaseModel):
    """A value: validated when made, never changed, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Upload(Frozen):
    """A picture that the caller sent, in the image store."""

    key: str
    sha256: str = Field(description="Of the bytes as they were sent.")
    width: int = Field(gt=0, description="Pixels.")
    height: int = Field(gt=0, description="Pixels.")


UPLOADED = ("image", "mask_image", "depth_map")
"""The fields of a spec that can hold an upload."""

WITHOUT_KEYS = {name: {"key"} for name in UPLOADED}
"""What to leave out of a spec that others see: where we store a picture is our affair."""


class Lora(Frozen):
    """A low-rank adapter and how strongly it acts."""

    name: str = Field(pattern=ADAPTER_NAME, description="A file in Lora/, without its suffix.")
    scale: float = Field(default=1.0, ge=-10, le=10)


Size = tuple[int, int]
"""Width and height in pixels, or left and top."""


class SdxlConditioning(Frozen):
    """What Stable Diffusion XL is told besides the prompt (Podell et al. 2023, section 2.2)."""

    prompt_2: str = Field(description="What the second text encoder reads.")
    negative_prompt_2: str
    original_size: Size = Field(description="Width and height the picture seems to have had.")
    crops_coords_top_left: Size = Field(description="Left and top of its crop.")
    target_size: Size
    negative_original_size: Size
    negative_crops_coords_top_left: Size
    negative_target_size: Size
    aesthetic_score: float = Field(description="Read by refiners only.")
    negative_aesthetic_score: float


class Hires(Frozen):
    """Draw small, enlarge, and draw over it at the larger size, with the same checkpoint."""

    width: int = Field(gt=0, description="Pixels of the larger size.")
    height: int = Field(gt=0)
    enlarged: Enlarged
    strength: float = Field(gt=0, le=1)
    num_inference_steps: int = Field(ge=1)


class Refiner(Frozen):
    """A second checkpoint that takes over: near the end of the schedule with `switch_at` below 1
    (an ensemble of experts), else from the finished picture with `strength`."""

    checkpoint: str
    switch_at: float = Field(gt=0, le=1, description="Share of the schedule; 1 for image-to-image.")
    strength: float = Field(gt=0, le=1)
    num_inference_steps: int = Field(ge=1)
    guidance_scale: float = Field(ge=0)
    sampler: Sampler
    sigmas: Sigmas


class Upscaler(Frozen):
    """A last checkpoint that draws the picture at four times its size."""

    checkpoint: str
    noise_level: int = Field(ge=0)
    num_inference_steps: int = Field(ge=1)
    guidance_scale: float = Field(ge=0)
    sampler: Sampler
    sigmas: Sigmas


class Axis(Frozen):
    """One field of the spec, and the values it takes."""

    field: Literal["guidance_scale", "num_inference_steps", "strength", "sampler", "seed"]
    values: tuple[float | int | str, ...] = Field(min_length=1)


class Sweep(Frozen):
    """Axes to vary, one picture for each combination; the last axis varies fastest."""

    axes: tuple[Axis, ...] = Field(min_length=1, max_length=2)

    @property
    def combinations(self) -> tuple[dict[str, Any], ...]:
        """Field values of each picture, in order."""
        names = [axis.field for axis in self.axes]
        return tuple(
            dict(zip(names, values, strict=True))
            for values in product(*(axis.values for axis in self.axes))
        )
