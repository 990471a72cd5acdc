"""The spec of each task: everything that decides its pictures."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter

from server.spec.parts import (
    Frozen,
    Hires,
    Lora,
    Refiner,
    SdxlConditioning,
    Sweep,
    Upload,
    Upscaler,
)
from server.spec.words import (
    LongPrompts,
    OutputFormat,
    PromptSyntax,
    Sampler,
    Sigmas,
    Task,
)

MAX_SEED = 2**53 - 1
"""The largest seed that JSON clients written in JavaScript can send and read back unchanged."""

MAX_PREVIEWS = 10
"""Of one image in one stage; each costs a decoding."""
MAX_CACHE_INTERVAL = 10
"""Beyond, nothing of a picture is left that is worth its time."""
SHORTCUTS = ("guidance_end", "cache_interval")
"""The fields that make it faster, and not the same picture; as they are, they change nothing."""
MAX_INPUT_PIXELS = 64 * 2**20
"""More are never decoded, whatever a card says."""


class Spec(Frozen):
    """What decides the pictures of any generation, whatever its task."""

    task: Task
    checkpoint: str
    prompt: str
    negative_prompt: str
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    num_images: int = Field(ge=1)
    num_inference_steps: int = Field(ge=1)
    guidance_scale: float = Field(ge=0)
    guidance_rescale: float = Field(ge=0, le=1)
    eta: float = Field(ge=0, le=1)
    sampler: Sampler
    sigmas: Sigmas
    seed: int = Field(ge=0, le=MAX_SEED, description="Image i is drawn with seed + i.")
    clip_skip: int = Field(ge=0, description="Text encoder layers left out, counted from the last.")
    output_format: OutputFormat
    priority: int = Field(
        ge=-10, le=10, description="Higher steps sooner among the pictures that a worker holds."
    )
    deadline_seconds: float = Field(gt=0, description="From acceptance to the terminal state.")
    # With a default, as every field that comes later: records of before must stay readable.
    strict: bool = Field(default=False, description="What would only warn fails it instead.")
    prompt_syntax: PromptSyntax = PromptSyntax.PLAIN
    long_prompts: LongPrompts = LongPrompts.TRUNCATE
    loras: tuple[Lora, ...] = ()
    vae: str = Field(default="", description="A replacement autoencoder; empty for its own.")
    sdxl: SdxlConditioning | None = Field(default=None, description="null for other families.")
    hires: Hires | None = None
    refiner: Refiner | None = None
    upscaler: Upscaler | None = None
    sweep: Sweep | None = None
    previews: int = Field(
        default=0, ge=0, le=MAX_PREVIEWS, description="Of each image, while it is drawn."
    )
    guidance_end: float = Field(
        default=1.0, gt=0, le=1, description="Share of each stage's steps after which it is off."
    )
    cache_interval: int = Field(
        default=1,
        ge=1,
        le=MAX_CACHE_INTERVAL,
        description="One in so many UNet calls is whole; the others use again what it found.",
    )

    @property
    def unused(self) -> frozenset[str]:
        """The shortcuts that it does not take. They are left out where the spec is stored, so that
        workers of before there were any can draw it."""
        defaults = {name: type(self).model_fields[name].default for name in SHORTCUTS}
        return frozenset(name for name, value in defaults.items() if getattr(self, name) == value)

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance runs, that is, whether a ticket has two rows."""
        return self.guidance_scale > 1.0

    def guided_calls(self, calls: int) -> int:
        """How many of an image's UNet calls have two rows; at least the first, where it is guided
        at all. As diffusers' callbacks count them that cut guidance off."""
        return min(calls, int(calls * self.guidance_end) + 1) if self.guided else 0

    def alone(self, index: int) -> Self:
        """The spec of image `index` alone."""
        alone: dict[str, Any] = {"num_images": 1, "seed": self.seed + index}
        if self.sweep is not None:
            varied = self.sweep.combinations[index]
            alone |= {"sweep": None, "seed": self.seed} | varied
        return type(self).model_validate(dict(self) | alone)


class TextToImage(Spec):
    """From noise alone."""

    task: Literal[Task.TEXT_TO_IMAGE] = Task.TEXT_TO_IMAGE


class ImageToImage(Spec):
    """From a picture with noise added (SDEdit, Meng et al. 2021)."""

    task: Literal[Task.IMAGE_TO_IMAGE] = Task.IMAGE_TO_IMAGE
    image: Upload | None = Field(description="null where the stage before hands it over.")
    strength: float = Field(ge=0, le=1, description="Share of the steps that run.")


class Inpainting(Spec):
    """Draws again where the mask is white."""

    task: Literal[Task.INPAINTING] = Task.INPAINTING
    image: Upload
    mask_image: Upload
    strength: float = Field(ge=0, le=1)
    padding_mask_crop: int | None = Field(
        description="Only the mask's surroundings, so many pixels wide, are drawn, at full size."
    )
    keep_outside: bool = Field(
        description="Pixels outside the mask come back exactly as they were sent."
    )


class DepthToImage(Spec):
    """Keeps the depth of a picture."""

    task: Literal[Task.DEPTH_TO_IMAGE] = Task.DEPTH_TO_IMAGE
    image: Upload
    depth_map: Upload | None = Field(description="null: estimated by the checkpoint.")
    strength: float = Field(ge=0, le=1)


class Upscale(Spec):
    """Draws a picture at four times its size."""

    task: Literal[Task.UPSCALE] = Task.UPSCALE
    image: Upload | None = Field(description="null where the stage before hands it over.")
    noise_level: int = Field(ge=0, description="How much noise its input is given.")


AnySpec = Annotated[
    TextToImage | ImageToImage | Inpainting | DepthToImage | Upscale, Field(discriminator="task")
]

SPEC: TypeAdapter[AnySpec] = TypeAdapter(AnySpec)
"""Reads and writes any spec, whatever its task."""
