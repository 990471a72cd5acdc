"""The shared vocabulary: what a generation is, in words that every room uses.

A spec is complete: `api` settles defaults, limits and the seed before it makes one, so nobody
behind it meets an unset field. It is frozen, and it travels through Redis as JSON.
"""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, TypeAdapter

MAX_SEED = 2**53 - 1
"""The largest seed that JSON clients written in JavaScript can send and read back unchanged."""

MAX_PREVIEWS = 10
"""Of one image in one stage; each costs a decoding."""
MAX_INPUT_PIXELS = 64 * 2**20
"""More are never decoded, whatever a card says."""

GENERATION_ID = r"^gen_[0-9a-f]{32}$"
ADAPTER_NAME = r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,127}$"
"""A file's name without its suffix; never a path."""


class Task(StrEnum):
    """What is asked for, named as the diffusers pipelines are."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    INPAINTING = "inpainting"
    DEPTH_TO_IMAGE = "depth-to-image"
    UPSCALE = "upscale"


class Sampler(StrEnum):
    """The diffusion noise schedulers under their usual names."""

    DDIM = "ddim"
    DDPM = "ddpm"
    PNDM = "pndm"
    LMS = "lms"
    EULER = "euler"
    EULER_A = "euler_a"
    HEUN = "heun"
    DPM2 = "dpm2"
    DPM2_A = "dpm2_a"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_SDE = "dpmpp_2m_sde"
    DPMPP_SDE = "dpmpp_sde"
    DPMPP_2S = "dpmpp_2s"
    DPMPP_3M_SDE = "dpmpp_3m_sde"
    UNIPC = "unipc"
    DEIS = "deis"
    LCM = "lcm"
    TCD = "tcd"
    IPNDM = "ipndm"
    SA_SOLVER = "sa_solver"


class Sigmas(StrEnum):
    """How the noise levels of the steps are spaced."""

    DEFAULT = "default"
    KARRAS = "karras"
    EXPONENTIAL = "exponential"
    BETA = "beta"


SPACED = frozenset(
    {
        Sampler.LMS,
        Sampler.EULER,
        Sampler.HEUN,
        Sampler.DPM2,
        Sampler.DPM2_A,
        Sampler.DPMPP_2M,
        Sampler.DPMPP_2M_SDE,
        Sampler.DPMPP_SDE,
        Sampler.DPMPP_2S,
        Sampler.DPMPP_3M_SDE,
        Sampler.UNIPC,
        Sampler.DEIS,
        Sampler.SA_SOLVER,
    }
)
"""The samplers whose diffusers class can space its sigmas other than by default."""

TAKES_ETA = frozenset({Sampler.DDIM, Sampler.TCD})
"""The samplers whose diffusers class has an eta; the others ignore it."""


TWO_CALLS = frozenset({Sampler.HEUN, Sampler.DPM2, Sampler.DPM2_A, Sampler.DPMPP_SDE})
"""Samplers of the second order, with two UNet calls for each step but the last."""

FROM_NOISE_ONLY = frozenset({Sampler.IPNDM})
"""Samplers whose diffusers class cannot add noise to a picture, nor share a schedule."""

DISTILLED = frozenset({Sampler.LCM, Sampler.TCD})
"""Samplers whose steps are picked from the short schedule that a model was distilled with."""

DISTILLED_STEPS = 50
"""The length of that schedule in diffusers' defaults, which no known checkpoint changes."""


class PromptSyntax(StrEnum):
    """How a prompt is read."""

    PLAIN = "plain"
    A1111 = "a1111"


class LongPrompts(StrEnum):
    """What becomes of a prompt that is longer than the text encoder's window."""

    CHUNK = "chunk"
    TRUNCATE = "truncate"
    REJECT = "reject"


class Enlarged(StrEnum):
    """What hires fix makes larger between its two drawings."""

    LATENTS = "latents"
    PICTURE = "picture"


class OutputFormat(StrEnum):
    """The encodings an image can be returned in."""

    PNG = "png"
    WEBP = "webp"
    JPEG = "jpeg"

    @property
    def media_type(self) -> str:
        """The MIME type of this format."""
        return f"image/{self.value}"


class GenerationState(StrEnum):
    """Where a generation stands. Exactly one terminal state is reached, once."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


TERMINAL = frozenset(
    {
        GenerationState.SUCCEEDED,
        GenerationState.FAILED,
        GenerationState.CANCELED,
        GenerationState.EXPIRED,
    }
)


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

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance runs, that is, whether a ticket has two rows."""
        return self.guidance_scale > 1.0

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


class Progress(Frozen):
    """How far a generation is, over all its images."""

    steps_done: int = 0
    steps_total: int = 0

    @property
    def fraction(self) -> float:
        """From 0.0 to 1.0."""
        return self.steps_done / self.steps_total if self.steps_total else 0.0


class ImageInfo(Frozen):
    """One finished picture and where it is stored."""

    key: str = Field(description="Its name in the image store.")
    seed: int
    width: int
    height: int
    sha256: str
    nsfw: StrictBool | None = Field(default=None, description="null where nothing checked it.")
    varied: dict[str, float | int | str] = Field(
        default_factory=dict, description="Of a sweep's picture: its values."
    )
    grid: bool = Field(default=False, description="The labelled overview of a sweep.")
    pixels_sha256: str = Field(default="", description="As drawn; empty of earlier versions.")
    thumbnail: str = Field(default="", description="As of a manifest.")


class Metrics(Frozen):
    """Where the time of a generation went, and on what."""

    queue_seconds: float
    encode_seconds: float
    denoise_seconds: float
    decode_seconds: float
    publish_seconds: float
    total_seconds: float
    steps: int
    mean_batch_rows: float
    peak_memory_bytes: int
    worker: str


class Failure(Frozen):
    """Why a generation ended without pictures; `code` is stable, `message` is for people."""

    code: str
    message: str


class Warn(Frozen):
    """Something that was ignored or substituted in what the caller asked."""

    code: str
    message: str
    field: str | None = None


def new_generation_id() -> str:
    """A fresh public id: 48 bits of milliseconds, then 80 random bits, so ids sort by time."""
    return f"gen_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def made_at(id: str) -> float:
    """When a public id was made, in seconds since the epoch."""
    return int(id[4:16], 16) / 1000
