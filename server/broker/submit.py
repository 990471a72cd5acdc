"""Acceptance in one atomic step: idempotent, bounded, and all of it or nothing.

One Lua script checks the Idempotency-Key, that somebody serves the checkpoint of each stage and
that the queue of the first has room, then writes the record, RQ's job, its place in RQ's queue, the
owner's list and the first event. Sending it twice with the same id changes nothing, so a lost reply
can be tried again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from typing import Any

from pydantic_core import to_json
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from server.broker import keys
from server.broker.record import Generation
from server.spec import GenerationState
from server.stages import checkpoints

MAX_DEADLINE_SECONDS = 604_800
"""How long a generation may be on its way; its record lives for the retention after that."""

DRAW = "darkroom.draw"
"""The only job label a worker accepts. It is a name in an allow-list, never imported."""

SCRIPT = """
-- KEYS: generation, job, queue, rq's set of queues, owner's list, events, idempotency, deliveries,
--       served, one for each checkpoint
-- ARGV: id, created_at, max_queued, state event, seconds that the idempotency is kept,
--       fingerprint or '', fields and values of the record and of the job but its data as JSON,
--       the job's data, since when there can be records, what is repeated, where records begin,
--       when to look for its webhook at the latest or '', the checkpoints
if redis.call('EXISTS', KEYS[1]) == 1 then return {'accepted', ARGV[1]} end
if ARGV[10] == 'nothing' then redis.call('DEL', KEYS[7]) end
if ARGV[6] ~= '' then
  local known = redis.call('HMGET', KEYS[7], 'id', 'fingerprint')
  if known[1] and ARGV[10] == 'living' then
    local now = redis.call('HMGET', ARGV[11] .. known[1], 'status', 'cancel_requested')
    local drawing = (now[1] == 'queued' or now[1] == 'running') and not now[2]
    known[1] = (drawing or now[1] == 'succeeded') and known[1]
  end
  if known[1] then
    return {known[2] == ARGV[6] and 'replayed' or 'conflict', known[1]}
  end
end
for n = 9, #KEYS do
  if redis.call('EXISTS', KEYS[n]) == 0 then return {'unserved', ARGV[n + 4]} end
end
if redis.call('LLEN', KEYS[3]) >= tonumber(ARGV[3]) then return {'full', ''} end
local fields = cjson.decode(ARGV[7])
redis.call('HSET', KEYS[1], unpack(fields[1]))
redis.call('HSET', KEYS[2], 'data', ARGV[8], unpack(fields[2]))
redis.call('SADD', KEYS[4], KEYS[3])
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[5], 0, '(' .. ARGV[9])
redis.call('XADD', KEYS[6], '*', 'event', 'state', 'data', ARGV[4])
if ARGV[12] ~= '' then redis.call('ZADD', KEYS[8], ARGV[12], ARGV[1]) end
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[7], 'id', ARGV[1], 'fingerprint', ARGV[6])
  redis.call('EXPIRE', KEYS[7], ARGV[5])
end
return {'accepted', ARGV[1], redis.call('RPUSH', KEYS[3], ARGV[1]) - 1}
"""

QUEUED = json.dumps({"status": GenerationState.QUEUED.value}, separators=(",", ":"))
NO_ID = "gen_" + 32 * "0"
NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)
NO_MOMENT = utcformat(NO_TIME)


class Repeats(StrEnum):
    """What a request that comes again is answered with, instead of a new generation."""

    ANY = "any"
    """The first one, however it ended."""
    LIVING = "living"
    """The last one, unless it failed, has expired, was canceled or is about to be."""
    NOTHING = "nothing"
    """It is none that comes again; those that follow may join what it makes."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The key a client sent, and what its body was."""

    key: str
    fingerprint: str
    repeats: Repeats = Repeats.ANY
    seconds: int | None = None
    """How long it is known; None: as long as records are kept."""

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
) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV of the script. `connection` is only named to RQ, nothing is sent on it."""
    id, checkpoint = generation.id, generation.spec.checkpoint
    needed = checkpoints(generation.spec)
    queue_key, job, data = _delivery(checkpoint, connection)
    record = to_json(list(chain.from_iterable(generation.to_hash().items()))).decode()
    job = job.replace(NO_ID, id).replace(NO_MOMENT, _moment())
    names = [
        keys.generation(id),
        Job.key_for(id),
        queue_key,
        Queue.redis_queues_keys,
        keys.owned(generation.owner),
        keys.events(id),
        keys.idempotency(generation.owner, idempotency.key if idempotency else ""),
        keys.DELIVERIES,
        *map(keys.served, needed),
    ]
    values = [
        id,
        repr(generation.created_at),
        max_queued,
        QUEUED,
        (idempotency and idempotency.seconds) or retention,
        idempotency.fingerprint if idempotency else "",
        f"[{record},{job}]",
        data.replace(NO_ID, id),
        repr(generation.created_at - retention - MAX_DEADLINE_SECONDS),
        idempotency.repeats if idempotency else "",
        keys.generation(""),
        repr(generation.deadline) if generation.webhook else "",
        *needed,
    ]
    return names, values


def _moment() -> str:
    """Now, as RQ writes times; its own function takes ten times as long."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@lru_cache(maxsize=256)
def _delivery(checkpoint: str, connection: Redis) -> tuple[str, str, str]:
    """RQ's queue key, and its record of a delivery as JSON and data, for an id and a time to be
    filled in: made by RQ's own classes, but not again for every request.

    The job holds the id alone: the spec stays in one place.
    """
    job = Job.create(
        DRAW,
        args=[NO_ID],
        connection=connection,
        id=NO_ID,
        origin=checkpoint,
        description=NO_ID,
        status=JobStatus.QUEUED,
        timeout=-1,
        serializer=JSONSerializer,
    )
    job.created_at = job.enqueued_at = NO_TIME
    fields = job.to_dict()
    # RQ compresses its data but reads it either way, and this is shorter as it is.
    data = zlib.decompress(fields.pop("data")).decode()
    # RQ's states are strings whose str() is another one.
    texts = (v if isinstance(v, str) else str(v) for v in chain.from_iterable(fields.items()))
    return Queue(checkpoint, connection=connection).key, json.dumps(list(texts)), data
