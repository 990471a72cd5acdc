"""What callers see of a generation. Knows records and addresses; decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.broker import Generation
from server.spec import Failure, GenerationState, ImageInfo, Metrics, TextToImage, Warn

ROOT = "/v1/generations"

EXAMPLE_ID = "gen_01a1fd190d80429bc543ce95ab93d44f"
EXAMPLE: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "status": "succeeded",
    "created_at": "2026-11-21T07:54:00.154Z",
    "started_at": "2026-11-21T07:54:00.161Z",
    "finished_at": "2026-11-21T07:54:02.907Z",
    "queue_position": None,
    "eta_seconds": None,
    "progress": {"steps_done": 20, "steps_total": 20, "fraction": 1.0},
    "spec": {
        "task": "text-to-image",
        "checkpoint": "demo",
        "prompt": "a red circle on a blue background",
        "negative_prompt": "",
        "width": 128,
        "height": 128,
        "num_images": 1,
        "num_inference_steps": 20,
        "guidance_scale": 4.0,
        "guidance_rescale": 0.0,
        "eta": 0.0,
        "sampler": "dpmpp_2m",
        "sigmas": "default",
        "seed": 7,
        "clip_skip": 0,
        "output_format": "png",
        "priority": 0,
        "deadline_seconds": 3600.0,
        "strict": False,
    },
    "warnings": [],
    "images": [
        {
            "index": 0,
            "url": f"{ROOT}/{EXAMPLE_ID}/images/0",
            "seed": 7,
            "width": 128,
            "height": 128,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "nsfw": None,
        }
    ],
    "metrics": {
        "queue_seconds": 0.007,
        "encode_seconds": 0.021,
        "denoise_seconds": 2.61,
        "decode_seconds": 0.094,
        "publish_seconds": 0.012,
        "total_seconds": 2.753,
        "steps": 20,
        "mean_batch_rows": 3.4,
        "peak_memory_bytes": 412_090_368,
        "worker": "demo-cpu-4a1f",
    },
    "error": None,
    "urls": {
        "self": f"{ROOT}/{EXAMPLE_ID}",
        "cancel": f"{ROOT}/{EXAMPLE_ID}/cancel",
        "events": f"{ROOT}/{EXAMPLE_ID}/events",
    },
}
QUEUED_EXAMPLE: dict[str, Any] = EXAMPLE | {
    "status": "queued",
    "started_at": None,
    "finished_at": None,
    "queue_position": 2,
    "eta_seconds": 4.2,
    "progress": {"steps_done": 0, "steps_total": 20, "fraction": 0.0},
    "images": [],
    "metrics": None,
}


class ProgressRecord(BaseModel):
    """How far it is, over all its images."""

    steps_done: int
    steps_total: int = Field(description="0 until a worker has begun.")
    fraction: float = Field(ge=0, le=1)


class ImageRecord(BaseModel):
    """One finished picture."""

    index: int
    url: str = Field(description="Where to get it.")
    seed: int
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    sha256: str = Field(description="Of the encoded file; also its ETag.")
    nsfw: bool | None = Field(description="null where nothing checked it.")


class Urls(BaseModel):
    """Where to go from here."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    this: str = Field(alias="self")
    cancel: str
    events: str


class GenerationRecord(BaseModel):
    """A generation as its owner sees it. Times are RFC 3339 in UTC."""

    id: str
    status: GenerationState
    created_at: str
    started_at: str | None
    finished_at: str | None
    queue_position: int | None = Field(description="How many are ahead; null unless queued.")
    eta_seconds: float | None = Field(
        description="Predicted seconds until it is finished; null where there is no measure yet."
    )
    progress: ProgressRecord
    spec: TextToImage = Field(description="Everything that decides the pictures, resolved.")
    warnings: tuple[Warn, ...] = Field(description="What was ignored or substituted.")
    images: tuple[ImageRecord, ...]
    metrics: Metrics | None
    error: Failure | None
    urls: Urls


class GenerationPage(BaseModel):
    """Some of the caller's generations, newest first."""

    generations: tuple[GenerationRecord, ...]
    next: str | None = Field(
        description="Cursor of the next page; null on the last. A page of a rare state can be "
        "short, or empty, and still have one."
    )


def record_of(
    generation: Generation, *, queue_position: int | None, eta_seconds: float | None
) -> GenerationRecord:
    """The public record."""
    here = address(generation.id)
    progress = generation.progress
    return GenerationRecord(
        id=generation.id,
        status=generation.status,
        created_at=rfc3339(generation.created_at),
        started_at=_when(generation.started_at),
        finished_at=_when(generation.finished_at),
        queue_position=queue_position,
        eta_seconds=eta_seconds,
        progress=ProgressRecord(
            steps_done=progress.steps_done,
            steps_total=progress.steps_total,
            fraction=progress.fraction,
        ),
        spec=generation.spec,
        warnings=generation.warnings,
        images=tuple(_image(here, i, image) for i, image in enumerate(generation.images)),
        metrics=generation.metrics,
        error=generation.error,
        urls=Urls(self=here, cancel=f"{here}/cancel", events=f"{here}/events"),
    )


def address(id: str) -> str:
    """Where a generation is found."""
    return f"{ROOT}/{id}"


def rfc3339(seconds: float) -> str:
    """A time since the epoch as `2026-11-21T07:54:00.154Z`."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


def _image(here: str, index: int, image: ImageInfo) -> ImageRecord:
    return ImageRecord(
        index=index,
        url=f"{here}/images/{index}",
        seed=image.seed,
        width=image.width,
        height=image.height,
        sha256=image.sha256,
        nsfw=image.nsfw,
    )
