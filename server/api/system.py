"""What can be asked for, and how long it would take."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from server.api import openapi
from server.api.body import read_json
from server.api.deps import Gate
from server.api.negotiation import JSON
from server.api.tokenizers import EXAMPLE as TOKENIZED_EXAMPLE
from server.api.tokenizers import REQUEST_EXAMPLE, Tokenized, TokenizeRequest
from server.broker import QueueInfo
from server.catalog import Card, Defaults, Limits, Safety
from server.errors import (
    BadRequest,
    BodyTooLarge,
    BrokerUnavailable,
    InvalidRequest,
    InvalidSpec,
    NotFound,
    Unavailable,
    UnknownCheckpoint,
    UnsupportedMediaType,
)
from server.forecast import Speed
from server.spec import FROM_NOISE_ONLY, SPACED, TAKES_ETA, Sampler, Sigmas, Task

router = APIRouter(prefix="/v1", tags=["system"])

CHECKPOINT_EXAMPLE: dict[str, Any] = {
    "name": "demo",
    "description": "A tiny checkpoint of coloured shapes that ships with Darkroom",
    "family": "sd",
    "native_size": 128,
    "prediction_type": "epsilon",
    "tasks": ["text-to-image", "image-to-image", "inpainting"],
    "safety": "off",
    "licence": "Apache-2.0",
    "defaults": Defaults(
        sampler=Sampler.DPMPP_2M, num_inference_steps=20, guidance_scale=4.0
    ).model_dump(mode="json"),
    "limits": Limits(
        max_side=512, max_pixels=262_144, max_input_pixels=4_194_304, max_clip_skip=1
    ).model_dump(mode="json"),
}
SAMPLER_EXAMPLE = {
    "name": "euler",
    "sigmas": list(Sigmas),
    "takes_eta": False,
    "from_noise_only": False,
}
QUEUE_EXAMPLE = {
    "checkpoint": "demo",
    "queued": 3,
    "running": 16,
    "ready_workers": 1,
    "draining_workers": 0,
    "capacity": 16,
    "wait_seconds": 4.75,
    "workers": [
        {
            "name": "host-4711-b423ae",
            "device": "cuda:0",
            "state": "ready",
            "capacity": 16,
            "images": 16,
            "step_rows": 32,
            "step_seconds": 0.412,
            "speed": {
                "native_pixels": 16_384,
                "curve": [[2, 0.029], [4, 0.054], [8, 0.104], [16, 0.205], [32, 0.41]],
                "smallest": [0.49, 0.016],
                "full_rows": 8,
                "exponent": 1.021,
                "decode_seconds": 0.012,
                "decode_curve": [[4096, 0.005], [16_384, 0.012], [32_768, 0.024]],
                "decode_pixels": 16_384,
                "drift": 1.006,
                "shallow": 1.0,
                "largest_pixels": 0,
            },
        }
    ],
}


class CheckpointRecord(BaseModel):
    """A checkpoint: what it draws by default, and what it refuses. Sizes are in pixels."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    description: str
    family: str
    native_size: int
    prediction_type: str
    tasks: tuple[Task, ...]
    safety: Safety = Field(description="What becomes of a picture that its safety checker flags.")
    licence: str
    defaults: Defaults
    limits: Limits


class CheckpointList(BaseModel):
    """Every checkpoint of the catalog; the first is the default."""

    checkpoints: tuple[CheckpointRecord, ...]


class SamplerRecord(BaseModel):
    """A sampler, and which other fields it looks at."""

    name: Sampler
    sigmas: tuple[Sigmas, ...]
    takes_eta: bool
    from_noise_only: bool = Field(
        description="Whether it cannot begin with a picture. A checkpoint that does nothing but "
        "inpaint can use it at strength 1."
    )


class SamplerList(BaseModel):
    """Every sampler."""

    samplers: tuple[SamplerRecord, ...]


class WorkerRecord(BaseModel):
    """A worker, as it said within the last seconds."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    device: str
    state: Literal["ready", "draining"]
    capacity: int = Field(description="Images it may draw side by side.")
    images: int = Field(description="Images it is denoising.")
    step_rows: int = Field(
        description="Samples in its last step, two for a guided image; 0 while it is idle."
    )
    step_seconds: float = Field(description="How long that step took; 0 while it is idle.")
    speed: Speed | None = Field(
        default=None,
        description="What it measured of itself, which predictions and `darkroom plan` start from.",
    )


class QueueRecord(BaseModel):
    """One checkpoint's queue."""

    checkpoint: str
    queued: int
    running: int
    ready_workers: int
    draining_workers: int
    capacity: int = Field(description="Images that its ready workers hold in flight.")
    wait_seconds: float | None = Field(
        description="Predicted seconds until all that is here now is drawn; null without a measure."
    )
    workers: tuple[WorkerRecord, ...]


class QueueList(BaseModel):
    """The queue of every checkpoint."""

    checkpoints: tuple[QueueRecord, ...]


@router.get(
    "/checkpoints",
    summary="List the checkpoints",
    operation_id="list_checkpoints",
    response_model=CheckpointList,
    responses=openapi.responses(
        {200: openapi.answer("The catalog.", {"checkpoints": [CHECKPOINT_EXAMPLE]})},
    ),
)
async def list_checkpoints(gate: Gate) -> Response:
    """Everything in the catalog, in its order; `GET /v1/queue` says which have workers."""
    return _json(CheckpointList(checkpoints=tuple(map(_checkpoint, gate.catalog.values()))))


@router.get(
    "/checkpoints/{name}",
    summary="Look at a checkpoint",
    operation_id="get_checkpoint",
    response_model=CheckpointRecord,
    responses=openapi.responses({200: openapi.answer("Its card.", CHECKPOINT_EXAMPLE)}, NotFound),
)
async def get_checkpoint(
    name: Annotated[str, Path(description="As the catalog has it.", examples=["demo"])], gate: Gate
) -> Response:
    """Its defaults and its limits."""
    if name not in gate.catalog:
        raise NotFound(f"there is no checkpoint {name[:80]!r} in the catalog")
    return _json(_checkpoint(gate.catalog[name]))


@router.get(
    "/samplers",
    summary="List the samplers",
    operation_id="list_samplers",
    response_model=SamplerList,
    responses=openapi.responses(
        {200: openapi.answer("All of them.", {"samplers": [SAMPLER_EXAMPLE]})},
    ),
)
async def list_samplers() -> Response:
    """Which spacings of sigmas each supports, and whether eta matters to it."""
    return _json(SamplerList(samplers=tuple(map(_sampler, Sampler))))


@router.get(
    "/queue",
    summary="How long it would take",
    operation_id="get_queue",
    response_model=QueueList,
    responses=openapi.responses(
        {200: openapi.answer("One entry a checkpoint.", {"checkpoints": [QUEUE_EXAMPLE]})},
        BrokerUnavailable,
    ),
)
async def get_queue(gate: Gate) -> Response:
    """Per checkpoint: what waits, what runs, who works, and the predicted wait."""
    queues = await gate.broker.queues(list(gate.catalog))
    return _json(QueueList(checkpoints=tuple(map(_queue, queues))))


@router.post(
    "/tokenize",
    summary="Tokens of a prompt",
    operation_id="tokenize",
    response_model=Tokenized,
    responses=openapi.responses(
        {200: openapi.answer("Tokens, chunk borders and the cut.", TOKENIZED_EXAMPLE)},
        BadRequest,
        BodyTooLarge,
        UnsupportedMediaType,
        InvalidRequest,
        InvalidSpec,
        UnknownCheckpoint,
        Unavailable,
    ),
    openapi_extra=openapi.body_of(TokenizeRequest, REQUEST_EXAMPLE),
)
async def tokenize(request: Request, gate: Gate) -> Response:
    """The tokens a prompt becomes, where each chunk ends and what would be cut, per text encoder.

    The names of embeddings are shown as ordinary words: only a worker reads embeddings.
    """
    asked, _ = await read_json(request, TokenizeRequest)
    card = gate.card(asked.checkpoint)
    # On a thread: a tokenizer is read from disk at first, and a long prompt takes milliseconds.
    return _json(await asyncio.to_thread(gate.tokenizers.tokenize, card, asked))


def _checkpoint(card: Card) -> CheckpointRecord:
    """Without the source: it may be a path on the workers' hosts."""
    return CheckpointRecord.model_validate(card)


def _sampler(sampler: Sampler) -> SamplerRecord:
    return SamplerRecord(
        name=sampler,
        sigmas=tuple(Sigmas) if sampler in SPACED else (Sigmas.DEFAULT,),
        takes_eta=sampler in TAKES_ETA,
        from_noise_only=sampler in FROM_NOISE_ONLY,
    )


def _queue(queue: QueueInfo) -> QueueRecord:
    ready = [worker for worker in queue.workers if worker.state == "ready"]
    return QueueRecord(
        checkpoint=queue.checkpoint,
        queued=queue.queued,
        running=queue.running,
        ready_workers=len(ready),
        draining_workers=len(queue.workers) - len(ready),
        capacity=sum(worker.capacity for worker in ready),
        wait_seconds=queue.wait_seconds,
        workers=tuple(map(WorkerRecord.model_validate, queue.workers)),
    )


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type=JSON)
