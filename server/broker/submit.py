"""Acceptance in one atomic step: idempotent, bounded, and all of it or nothing.

One Lua script checks the Idempotency-Key, that somebody serves the checkpoint and that the queue
has room, then writes the record, RQ's job, its place in RQ's queue, the owner's list and the first
event. Sending it twice with the same id changes nothing, so a lost reply can be tried again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now

from server.broker import keys
from server.broker.record import Generation

DRAW = "darkroom.draw"
"""The only job label a worker accepts. It is a name in an allow-list, never imported."""

SCRIPT = """
-- KEYS: generation, job, queue, rq's set of queues, owner's list, events, served, idempotency
-- ARGV: id, created_at, max_queued, state event, retention, fingerprint or '',
--       number of record values, record fields and values..., job fields and values...
if redis.call('EXISTS', KEYS[1]) == 1 then return {'accepted', ARGV[1]} end
if ARGV[6] ~= '' then
  local known = redis.call('HMGET', KEYS[8], 'id', 'fingerprint')
  if known[1] then
    return {known[2] == ARGV[6] and 'replayed' or 'conflict', known[1]}
  end
end
if redis.call('EXISTS', KEYS[7]) == 0 then return {'unserved', ''} end
if redis.call('LLEN', KEYS[3]) >= tonumber(ARGV[3]) then return {'full', ''} end
local split = 7 + tonumber(ARGV[7])
redis.call('HSET', KEYS[1], unpack(ARGV, 8, split))
redis.call('HSET', KEYS[2], unpack(ARGV, split + 1))
redis.call('SADD', KEYS[4], KEYS[3])
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
redis.call('XADD', KEYS[6], '*', 'event', 'state', 'data', ARGV[4])
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[8], 'id', ARGV[1], 'fingerprint', ARGV[6])
  redis.call('EXPIRE', KEYS[8], ARGV[5])
end
return {'accepted', ARGV[1], redis.call('RPUSH', KEYS[3], ARGV[1]) - 1}
"""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The key a client sent, and what its body was."""

    key: str
    fingerprint: str

    @classmethod
    def of(cls, key: str, body: bytes) -> Idempotency:
        """Keep hashes only: neither the key nor the body is written to Redis."""
        return cls(hashlib.sha256(key.encode()).hexdigest(), hashlib.sha256(body).hexdigest())


def arguments(
    generation: Generation,
    connection: Redis,
    *,
    max_queued: int,
    retention: int,
    idempotency: Idempotency | None,
) -> tuple[list[str], list[str | bytes | int]]:
    """KEYS and ARGV of the script. `connection` is only named to RQ, nothing is sent on it."""
    job = _job(generation, connection)
    queue = Queue(generation.spec.checkpoint, connection=connection)
    key_hash = idempotency.key if idempotency else ""
    names = [
        keys.generation(generation.id),
        job.key,
        queue.key,
        Queue.redis_queues_keys,
        keys.owned(generation.owner),
        keys.events(generation.id),
        keys.served(generation.spec.checkpoint),
        keys.idempotency(generation.owner, key_hash),
    ]
    record = _flat(generation.to_hash())
    event = json.dumps({"status": generation.status.value}, separators=(",", ":"))
    values = [
        generation.id,
        repr(generation.created_at),
        max_queued,
        event,
        retention,
        idempotency.fingerprint if idempotency else "",
        len(record),
        *record,
        *_flat(job.to_dict()),
    ]
    return names, values


def _job(generation: Generation, connection: Redis) -> Job:
    """RQ's record of the delivery. It holds the id alone: the spec stays in one place."""
    job = Job.create(
        DRAW,
        args=[generation.id],
        connection=connection,
        id=generation.id,
        origin=generation.spec.checkpoint,
        description=generation.id,
        status=JobStatus.QUEUED,
        timeout=-1,
        serializer=JSONSerializer,
    )
    job.enqueued_at = now()
    return job


def _flat(fields: dict[str, Any]) -> list[str | bytes]:
    encode: Callable[[Any], str | bytes] = lambda v: v if isinstance(v, bytes) else str(v)  # noqa: E731
    return [part for name, value in fields.items() for part in (name, encode(value))]
