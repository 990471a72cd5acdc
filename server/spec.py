"""The shared vocabulary: what a generation is, in words that every room uses.

A spec is complete: `api` settles defaults, limits and the seed before it makes one, so nobody
behind it meets an unset field. It is frozen, and it travels through Redis as JSON.
"""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, TypeAdapter

MAX_SEED = 2**53 - 1
"""The largest seed that JSON clients written in JavaScript can send and read back unchanged."""

GENERATION_ID = r"^gen_[0-9a-f]{32}$"


class Task(StrEnum):
    """What is asked for, named as the diffusers pipelines are."""

    TEXT_TO_IMAGE = "text-to-image"


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


DISTILLED = frozenset({Sampler.LCM, Sampler.TCD})
"""Samplers whose steps are picked from the short schedule that a model was distilled with."""

DISTILLED_STEPS = 50
"""The length of that schedule in diffusers' defaults, which no known checkpoint changes."""


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


class TextToImage(Frozen):
    """Everything that decides the pictures of a text-to-image generation."""

    task: Literal[Task.TEXT_TO_IMAGE] = Task.TEXT_TO_IMAGE
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

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance runs, that is, whether a ticket has two rows."""
        return self.guidance_scale > 1.0


SPEC: TypeAdapter[TextToImage] = TypeAdapter(TextToImage)
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
