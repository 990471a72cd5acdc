"""For the machines that look after this one: is it alive, can it work, what has it counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from server.api import openapi
from server.api.deps import Gate
from server.api.negotiation import JSON
from server.broker import QueueInfo
from server.errors import BrokerUnavailable, StorageFull, Unavailable
from server.metrics import GatewayMetrics

READY_EXAMPLE: dict[str, Any] = {
    "ready": True,
    "reasons": [],
    "checkpoints": {"demo": {"ready_workers": 1}},
    "missing": [],
}
WAITING_EXAMPLE: dict[str, Any] = {
    "ready": False,
    "reasons": ["no worker is ready"],
    "checkpoints": {},
    "missing": ["demo"],
}

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """Alive."""

    status: str


class CheckpointReadiness(BaseModel):
    """Who serves one checkpoint."""

    ready_workers: int


class Readiness(BaseModel):
    """Whether a generation submitted now would be drawn, and if not, why. Everybody may read it, so
    it says no more than that."""

    ready: bool
    reasons: tuple[str, ...] = Field(description="Why not.")
    checkpoints: dict[str, CheckpointReadiness] = Field(description="Those that are served.")
    missing: tuple[str, ...] = Field(
        description="Those that ought to be served and are not: what this gateway draws with by "
        "default, and what DARKROOM_WORKERS names. They do not make it unready while another is."
    )


@router.get(
    "/healthz",
    summary="Is the process alive?",
    operation_id="health",
    response_model=Health,
    responses=openapi.responses(
        {200: openapi.answer("It is.", {"status": "ok"})},
    ),
)
async def health() -> Response:
    """Answers as long as the process can; asks nobody else."""
    return Response(Health(status="ok").model_dump_json(), media_type=JSON)


@router.get(
    "/readyz",
    summary="Can it work?",
    operation_id="readiness",
    response_model=Readiness,
    responses=openapi.responses(
        {
            200: openapi.answer("Nothing is missing.", READY_EXAMPLE),
            503: openapi.answer("Something is missing; `reasons` says what.", WAITING_EXAMPLE)
            | {"model": Readiness},
        },
    ),
)
async def readiness(gate: Gate) -> Response:
    """Ready when Redis answers and takes writes, at least one worker of any checkpoint is ready,
    and the image store can be written to and has room. `/metrics` and `/v1/queue` have the
    numbers."""
    answer = await _readiness(gate)
    headers = None if answer.ready else {"Retry-After": "2"}
    return Response(answer.model_dump_json(), 200 if answer.ready else 503, headers, JSON)


async def _readiness(gate: Gate) -> Readiness:
    reasons = [] if (full := await _full(gate)) is None else [full]
    try:
        queues = await gate.broker.queues(list(gate.catalog))
    except BrokerUnavailable as error:
        reasons = [error.message, *reasons]
        return Readiness(ready=False, reasons=tuple(reasons), checkpoints={}, missing=())
    try:
        await gate.broker.expect_writable()
    except BrokerUnavailable as error:
        reasons = [error.message, *reasons]
    counts = {
        queue.checkpoint: sum(worker.state == "ready" for worker in queue.workers)
        for queue in queues
    }
    if not any(counts.values()):
        reasons = ["no worker is ready", *reasons]
    return Readiness(
        ready=not reasons,
        reasons=tuple(reasons),
        checkpoints={name: CheckpointReadiness(ready_workers=n) for name, n in counts.items() if n},
        missing=tuple(name for name in gate.expected if not counts.get(name)),
    )


async def _full(gate: Gate) -> str | None:
    """What is wrong with the image store; how much it has left is not for everybody."""
    try:
        await gate.space.check()
    except StorageFull:
        return "the image store has too little room left"
    except Unavailable as error:
        return error.message
    return None


@router.get(
    "/metrics",
    summary="What it has counted",
    operation_id="metrics",
    response_class=Response,
    responses=openapi.responses(
        {
            200: {
                "description": "Prometheus' text format.",
                "content": {
                    "text/plain": {
                        "schema": {"type": "string"},
                        "example": 'darkroom_queue_depth{checkpoint="demo"} 3.0\n',
                    }
                },
            }
        },
    ),
)
async def metrics(gate: Gate) -> Response:
    """Everything that this gateway and the processes beside it count, and the queues as they are
    now."""
    counted = gate.metrics
    with contextlib.suppress(Unavailable):
        await gate.space.check()  # looks at what is left
    try:
        _show(counted, await gate.broker.queues(list(gate.catalog)))
        _fill(counted, await gate.broker.memory())
        counted.redis_seconds.observe(await gate.broker.ping())
    except BrokerUnavailable:
        _forget(counted)  # an old number would look like a queue that stands still
    told = await gate.exposition.gathered(counted.shared)
    return Response(told, media_type=CONTENT_TYPE_LATEST)


def _show(counted: GatewayMetrics, queues: Iterable[QueueInfo]) -> None:
    for queue in queues:
        name = queue.checkpoint
        counted.queue_depth.labels(name).set(queue.queued)
        counted.queue_oldest_seconds.labels(name).set(queue.oldest_seconds)
        counted.queued_work_seconds.labels(name).set(queue.queued_seconds)
        for state, count in queue.states.items():
            counted.workers.labels(name, state).set(count)


def _fill(counted: GatewayMetrics, memory: Mapping[str, int]) -> None:
    counted.redis_memory_bytes.clear()  # a bound may have been taken away
    for kind, size in memory.items():
        counted.redis_memory_bytes.labels(kind).set(size)


def _forget(counted: GatewayMetrics) -> None:
    counted.queue_depth.clear()
    counted.queue_oldest_seconds.clear()
    counted.queued_work_seconds.clear()
    counted.workers.clear()
    counted.redis_memory_bytes.clear()
