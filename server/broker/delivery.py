"""What happens to a generation after it was accepted: writes for a caller's own pipeline.

Each function adds commands to a pipeline that somebody else executes, so that a worker can put
them in one MULTI with RQ's own writes, and a claim or finish is seen whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from redis.client import Pipeline
from redis.typing import EncodableT

from server.broker import keys
from server.broker.record import IMAGES, METRICS, WARNINGS, WorkerInfo
from server.spec import Failure, GenerationState, ImageInfo, Metrics, Progress, Warn

MAX_EVENTS = 1000

DONE = "done"
"""The last event of every generation, however it ends."""

Fields = dict[EncodableT, EncodableT]


def announce(pipe: Pipeline, id: str, event: str, data: Mapping[str, Any]) -> None:
    """Append an event to the generation's stream and tell the gateways."""
    fields: Fields = {"event": event, "data": json.dumps(data, separators=(",", ":"))}
    pipe.xadd(keys.events(id), fields, maxlen=MAX_EVENTS, approximate=True)
    pipe.publish(keys.CHANGES, f"{id} {event}")


def started(pipe: Pipeline, id: str, *, at: float) -> None:
    """A worker has claimed it. Its time is that of its first stage."""
    running = GenerationState.RUNNING.value
    pipe.hset(keys.generation(id), "status", running)
    pipe.hsetnx(keys.generation(id), "started_at", repr(at))
    announce(pipe, id, "state", {"status": running})


def progress_event(progress: Progress) -> str:
    """The data of a `progress` event. A lease's script writes it, together with its check that
    the writer still holds the generation."""
    return json.dumps(progress.model_dump() | {"fraction": progress.fraction})


def requeued(pipe: Pipeline, id: str, *, steps_before: int | None) -> None:
    """Its worker gave it back or died; another will draw its stage from the start.
    `steps_before`: of the stages that are done; None where there are none."""
    queued = GenerationState.QUEUED.value
    pipe.hset(keys.generation(id), mapping={"status": queued, "steps_done": steps_before or 0})
    if steps_before is None:
        pipe.hdel(keys.generation(id), "started_at")
    announce(pipe, id, "state", {"status": queued})


def handed_on(
    pipe: Pipeline,
    id: str,
    *,
    at: float,
    checkpoint: str,
    handed: Sequence[Sequence[str]],
    progress: Progress,
    stage_metrics: Sequence[Metrics],
    warnings: Sequence[Warn],
) -> None:
    """A stage is done, and what it made is stored: it waits for a worker of the next one's
    checkpoint. All sequences hold what the stages before have left, too."""
    queued = GenerationState.QUEUED.value
    pipe.hset(
        keys.generation(id),
        mapping={
            "status": queued,
            "queued_at": repr(at),
            "handed": json.dumps([list(each) for each in handed]),
            "stage_metrics": METRICS.dump_json(
                tuple(stage_metrics), exclude_defaults=True
            ).decode(),
            "drawing_warnings": WARNINGS.dump_json(tuple(warnings)).decode(),
            "steps_done": progress.steps_done,
            "steps_total": progress.steps_total,
            keys.STEPS_BEFORE: progress.steps_done,
        },
    )
    announce(pipe, id, "stage", {"number": len(handed), "checkpoint": checkpoint})
    announce(pipe, id, "state", {"status": queued})


def succeeded(
    pipe: Pipeline,
    id: str,
    *,
    owner: str,
    at: float,
    retention: int,
    images: Sequence[ImageInfo],
    metrics: Metrics,
    warnings: Sequence[Warn],
    stage_metrics: Sequence[Metrics] = (),
) -> None:
    """The images are stored; from here on they are visible. `metrics` are of all stages together,
    `stage_metrics` of each, where there are several."""
    if stage_metrics:
        each = METRICS.dump_json(tuple(stage_metrics), exclude_defaults=True).decode()
        pipe.hset(keys.generation(id), "stage_metrics", each)
    pipe.hset(
        keys.generation(id),
        mapping={
            # Without what is as it was before there was such a field: older gateways read it.
            "images": IMAGES.dump_json(tuple(images), exclude_defaults=True).decode(),
            "metrics": metrics.model_dump_json(exclude_defaults=True),
            "steps_done": metrics.steps,
            "steps_total": metrics.steps,
            "drawing_warnings": WARNINGS.dump_json(tuple(warnings)).decode(),
        },
    )
    for index, image in enumerate(images):
        announce(pipe, id, "image", {"index": index, "seed": image.seed, "sha256": image.sha256})
    ended(pipe, id, GenerationState.SUCCEEDED, owner=owner, at=at, retention=retention)


def ended(
    pipe: Pipeline,
    id: str,
    state: GenerationState,
    *,
    owner: str,
    at: float,
    retention: int,
    error: Failure | None = None,
) -> None:
    """The terminal state; from now on the record is kept for `retention` seconds, and its webhook
    is due if it has one. Redis itself forgets it after twice that, buried or not."""
    expires_at = at + retention
    fields: Fields = {
        "status": state.value,
        "finished_at": repr(at),
        "expires_at": repr(expires_at),
    }
    if error is not None:
        fields["error"] = error.model_dump_json()
    pipe.hset(keys.generation(id), mapping=fields)
    announce(pipe, id, "state", {"status": state.value})
    announce(pipe, id, DONE, {"status": state.value})
    pipe.expire(keys.generation(id), 2 * retention)
    pipe.expire(keys.events(id), 2 * retention)
    pipe.zrem(keys.DEADLINES, id)
    pipe.zadd(keys.EXPIRING, {id: expires_at})
    pipe.zadd(keys.DELIVERIES, {id: at}, xx=True)
    pipe.srem(keys.living(owner), id)


def alive(pipe: Pipeline, worker: WorkerInfo, *, ttl_ms: int, served_seconds: float) -> None:
    """A worker's sign of life; a draining one no longer counts as serving."""
    pipe.hset(keys.worker(worker.name), mapping=dict(worker.to_hash().items()))
    pipe.pexpire(keys.worker(worker.name), ttl_ms)
    pipe.sadd(keys.workers(worker.checkpoint), worker.name)
    if worker.state == "ready":
        pipe.set(keys.served(worker.checkpoint), worker.name, px=int(served_seconds * 1000))


def gone(pipe: Pipeline, worker: WorkerInfo) -> None:
    """A worker has left in good order."""
    pipe.delete(keys.worker(worker.name))
    pipe.srem(keys.workers(worker.checkpoint), worker.name)
