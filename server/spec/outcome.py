"""What becomes of a generation: its id, its states, how far it is, what came of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from enum import StrEnum

from pydantic import Field, StrictBool

from server.spec.parts import Frozen
from server.spec.words import Quantization

GENERATION_ID = r"^gen_[0-9a-f]{32}$"


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
    quantization: Quantization = Field(default=Quantization.NONE, description="As of a manifest.")


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
    quantization: Quantization = Field(
        default=Quantization.NONE,
        description="Of the checkpoint's weights; of several stages, the first that was quantized.",
    )


class Failure(Frozen):
    """Why a generation ended without pictures; `code` is stable, `message` is for people."""

    code: str
    message: str


class Warn(Frozen):
    """Something that was ignored or substituted in what the caller asked."""

    code: str
    message: str
    field: str | None = None


def first_quantized(each: Iterable[Quantization]) -> Quantization:
    """Of several stages, in their order."""
    return next((one for one in each if one is not Quantization.NONE), Quantization.NONE)


def new_generation_id() -> str:
    """A fresh public id: 48 bits of milliseconds, then 80 random bits, so ids sort by time."""
    return f"gen_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def made_at(id: str) -> float:
    """When a public id was made, in seconds since the epoch."""
    return int(id[4:16], 16) / 1000
