"""What a caller can change after acceptance: cancel and delete. Blocking; run it on a thread.

Each change WATCHes the record and RQ's job, so that it and a worker's claim or finish cannot both
happen: the loser looks again.
"""

from __future__ import annotations

import time
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError, WatchError
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry
from rq.serializers import JSONSerializer

from server.broker import delivery, keys, line
from server.broker.record import Generation
from server.errors import DeadlineExceeded
from server.spec import Failure, GenerationState

REMOVE = """
-- KEYS: owned, deliveries, expiring, living, record, and what belongs to it
-- ARGV: id, owner, now, for how many seconds a tombstone stays
-- A script that has begun to write may go on in a Redis that is full: so it removes first.
redis.call('DEL', unpack(KEYS, 5))
for i = 1, 3 do redis.call('ZREM', KEYS[i], ARGV[1]) end
redis.call('SREM', KEYS[4], ARGV[1])
redis.call('HSET', KEYS[5], 'owner', ARGV[2], 'deleted_at', ARGV[3])
redis.call('EXPIRE', KEYS[5], ARGV[4])
"""


def read(connection: Redis | Pipeline, id: str) -> Generation | None:
    """The record, or None when there is none or only a tombstone."""
    raw: Any = connection.hgetall(keys.generation(id))
    return Generation.from_hash(raw) if b"status" in raw else None


def cancel(connection: Redis, id: str, *, retention: int) -> Generation | None:
    """End it now if it is queued, for whichever of its stages; ask its worker to stop between two
    steps if it is running. Returns it, as it was before, if it was this that ended it."""
    return _leave_queue(connection, id, GenerationState.CANCELED, None, retention)


def cancel_all(connection: Redis, owner: str, *, retention: int) -> tuple[int, int]:
    """The same with all that an owner has: how many this ended, and how many were asked to stop."""
    ended = asked = 0
    living: Any = connection.smembers(keys.living(owner))
    for id in (each.decode() for each in living):
        if cancel(connection, id, retention=retention) is not None:
            ended += 1
        elif (now := read(connection, id)) is not None and not now.terminal:
            asked += 1
    return ended, asked


def expire(connection: Redis, generation: Generation, *, retention: int) -> Generation | None:
    """End a generation whose deadline has passed if it is queued; workers do so for those they
    claim. Returns it, as it was before, if it was this that ended it."""
    seconds = generation.spec.deadline_seconds
    error = Failure(
        code=DeadlineExceeded.code, message=f"it was still queued after {seconds:g} seconds"
    )
    return _leave_queue(connection, generation.id, GenerationState.EXPIRED, error, retention)


def remove(connection: Redis, generation: Generation, *, retention: int) -> None:
    """Leave a tombstone where the record was, so that later reads answer 410, then forget it."""
    id, owner = generation.id, generation.owner
    listed = (keys.owned(owner), keys.DELIVERIES, keys.EXPIRING, keys.living(owner))
    previews = (keys.preview(id, index) for index in range(generation.spec.num_images))
    record = (keys.generation(id), keys.events(id), keys.attempts(id), *previews)
    connection.register_script(REMOVE)(
        keys=[*listed, *record], args=[id, owner, repr(time.time()), retention]
    )


def _leave_queue(
    connection: Redis, id: str, state: GenerationState, error: Failure | None, retention: int
) -> Generation | None:
    with connection.pipeline() as pipe:
        while True:
            try:
                pipe.watch(keys.generation(id), Job.key_for(id))  # type: ignore[no-untyped-call]
                generation = read(pipe, id)
                if generation is None or generation.terminal:
                    return None
                queued = generation.status is GenerationState.QUEUED
                if queued:
                    _end_queued(connection, pipe, generation, state, error, retention)
                elif state is GenerationState.CANCELED:
                    pipe.multi()
                    pipe.hset(keys.generation(id), "cancel_requested", "1")
                pipe.execute()
                return generation if queued else None
            except WatchError:
                continue


def _end_queued(
    connection: Redis,
    pipe: Pipeline,
    generation: Generation,
    state: GenerationState,
    error: Failure | None,
    retention: int,
) -> None:
    """RQ's own writes and ours in one MULTI. A worker that has just popped it finds it ended."""
    queue = Queue(generation.checkpoint, connection=connection, serializer=JSONSerializer)
    try:
        job = Job.fetch(generation.id, connection=connection, serializer=JSONSerializer)
    except RedisError:
        raise
    except Exception:  # there is none, or a forged one: a worker drops its id from the queue
        job = None
    pipe.multi()
    if job is not None:
        queue.remove(job, pipeline=pipe)
        queue.scheduled_job_registry.remove(job, pipeline=pipe)
        line.leave(pipe, keys.line(queue.name), job.id)
        job.set_status(JobStatus.CANCELED, pipeline=pipe)
        registry = CanceledJobRegistry(queue.name, connection, serializer=JSONSerializer)
        registry.add(job, ttl=retention, pipeline=pipe)
        pipe.expire(job.key, retention)
    id, owner, at = generation.id, generation.owner, time.time()
    delivery.ended(pipe, id, state, owner=owner, at=at, retention=retention, error=error)
