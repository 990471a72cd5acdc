"""Acceptance in one atomic step: idempotent, bounded, and all of it or nothing.

One Lua script checks the Idempotency-Key, that somebody serves the checkpoint of each stage, that
the owner may have more, and that it would be drawn soon enough; then it writes the record, RQ's
job, its places in RQ's queue and in line, the owner's list and the first event. Sending it twice
with the same id changes nothing, so a lost reply can be tried again.
Who is refused for want of room is told when to come back, and is let in then (`promises`).
"""

from __future__ import annotations

import hashlib
import json
import math
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

from server.broker import hands, keys, line, promises
from server.broker.record import Generation
from server.forecast import Demand
from server.spec import GenerationState
from server.stages import checkpoints

MAX_DEADLINE_SECONDS = 604_800
"""How long a generation may be on its way; its record lives for the retention after that."""

DRAW = "darkroom.draw"
"""The only job label a worker accepts. It is a name in an allow-list, never imported."""

SCRIPT = (
    line.LIBRARY
    + hands.LIBRARY
    + promises.LIBRARY
    + """
-- KEYS: generation, job, queue, rq's set of queues, owner's list, events, idempotency, deliveries,
--       owner's living, what the owner has spent today, deadlines, names of the workers,
--       served, one for each checkpoint
-- ARGV: id, created_at, what is asked and allowed as JSON, state event,
--       seconds that the idempotency is kept, fingerprint or '',
--       fields and values of the record and of the job but its data as JSON,
--       the job's data, since when there can be records, what is repeated, where records begin,
--       when to look for its webhook at the latest or '', the checkpoints
if redis.call('EXISTS', KEYS[1]) == 1 then return {'accepted', ARGV[1]} end
-- A Redis that is full refuses the first write of a script that takes memory, but none after one
-- that frees some. So this, which changes nothing, is the first.
local function expect_memory() redis.call('SETRANGE', KEYS[10], 0, '') end
if ARGV[10] == 'nothing' then expect_memory() redis.call('DEL', KEYS[7]) end
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
for n = 13, #KEYS do
  if redis.call('EXISTS', KEYS[n]) == 0 then return {'unserved', ARGV[n]} end
end
expect_memory()
local id, asked = ARGV[1], cjson.decode(ARGV[3])
local here, owner, work = asked.line, asked.owner, asked.work
local held = in_hand(KEYS[12])
asked.workers = math.max(1, held.workers)
local function figure(number) return string.format('%.6f', number) end

local living = redis.call('SCARD', KEYS[9])
if asked.owner_living > 0 and living >= asked.owner_living then
  -- What a worker or gateway of an earlier version has ended is still among them.
  for _, each in ipairs(redis.call('SMEMBERS', KEYS[9])) do
    local state = redis.call('HGET', ARGV[11] .. each, 'status')
    if state ~= 'queued' and state ~= 'running' then redis.call('SREM', KEYS[9], each) end
  end
  living = redis.call('SCARD', KEYS[9])
  if living >= asked.owner_living then return {'owner_living', figure(living)} end
end
local owned = tonumber(redis.call('HGET', here .. ':load', owner) or 0)
if asked.owner_seconds > 0 and owned > 0 and owned + work > asked.owner_seconds then
  return {'owner_seconds', figure((owned + work - asked.owner_seconds) / pace(asked))}
end
local spent = tonumber(redis.call('GET', KEYS[10]) or 0)
local today = spent + waits(owner) + asked.works
if asked.owner_daily > 0 and today > asked.owner_daily then
  return {'owner_daily', figure(spent)}
end
local again = asked.like ~= '' and returns(asked)
local waiting = redis.call('LLEN', KEYS[3])
-- Where nothing waits, those who were promised something have not come.
if redis.call('ZCARD', here .. ':turns') == 0 then
  redis.call('HDEL', here .. ':promised', owner)
end
if waiting >= asked.waiting * (again and asked.lenience or 1) then
  local share = asked.waiting / (redis.call('ZCARD', here .. ':turns') + 1)
  if redis.call('ZCARD', here .. ':of:' .. owner) >= share then
    return {'full', promise(asked, work / asked.workers, again)}
  end
end
enter(here, id, owner, work, asked.weight, asked.priority)
redis.call('RPUSH', KEYS[3], id)
local ahead, seconds = before(here, KEYS[3], id)
local most = again and asked.seconds * asked.lenience or asked.seconds
local kept = again and 0 or math.min(promised(asked), asked.seconds / 2)
local wait, company = begins(asked, held, seconds)
local drawing = asked.alone
if company > 0 then drawing = drawing + (asked.shared - drawing) * company / asked.company end
local over = wait + drawing - asked.latest
local late, long = over > 0 and wait + company > 0, ahead > 0 and wait + kept > most
if late or long then
  leave(here, id)
  redis.call('RPOP', KEYS[3])
  if late then return {'late', figure(over)} end
  return {'long', promise(asked, wait - asked.seconds, again)}
end
local fields = cjson.decode(ARGV[7])
redis.call('HSET', KEYS[1], unpack(fields[1]))
redis.call('HSET', KEYS[2], 'data', ARGV[8], unpack(fields[2]))
redis.call('SADD', KEYS[4], KEYS[3])
redis.call('ZADD', KEYS[5], ARGV[2], id)
redis.call('ZREMRANGEBYSCORE', KEYS[5], 0, '(' .. ARGV[9])
redis.call('SADD', KEYS[9], id)
redis.call('ZADD', KEYS[11], figure(asked.deadline), id)
redis.call('XADD', KEYS[6], '*', 'event', 'state', 'data', ARGV[4])
if ARGV[12] ~= '' then redis.call('ZADD', KEYS[8], ARGV[12], id) end
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[7], 'id', id, 'fingerprint', ARGV[6])
  redis.call('EXPIRE', KEYS[7], ARGV[5])
end
return {'accepted', id, ahead, figure(wait), figure(company), living + 1, figure(today)}
"""
)

QUEUED = json.dumps({"status": GenerationState.QUEUED.value}, separators=(",", ":"))
FOREVER = 1e12
"""Seconds; JSON has no infinity."""
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


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a generation is accepted. What an owner may have is in seconds of work; 0: as much
    as there is."""

    waiting: int = 1000
    """Generations in the queue, from which on an owner is held to an equal share of them."""
    max_seconds: float = math.inf
    """That it may wait until it begins."""
    latest_seconds: float = math.inf
    """That it may take until its first stage is done, or its deadline cannot be met."""
    like: str = ""
    """What the request is known by when it comes again; empty: by nothing."""
    owner_living: int = 0
    """Generations of its owner that are queued or running at once."""
    owner_seconds: float = 0.0
    """Of its owner in this queue."""
    owner_daily: float = 0.0
    """Of its owner within a day, by UTC."""


def arguments(
    generation: Generation,
    connection: Redis,
    *,
    demand: Demand,
    terms: Terms,
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
        keys.living(generation.owner),
        keys.spent(generation.owner, generation.created_at),
        keys.DEADLINES,
        keys.workers(checkpoint),
        *map(keys.served, needed),
    ]
    values = [
        id,
        repr(generation.created_at),
        to_json(_asked(generation, demand, terms)).decode(),
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


def _asked(generation: Generation, demand: Demand, terms: Terms) -> dict[str, Any]:
    spec = generation.spec
    return hands.asked(demand) | {
        "line": keys.line(spec.checkpoint),
        "owner": generation.owner,
        "works": sum(generation.works) or demand.work,
        "weight": generation.weight,
        "priority": spec.priority,
        "deadline": generation.deadline,
        "waiting": terms.waiting,
        "seconds": min(terms.max_seconds, FOREVER),
        "latest": min(terms.latest_seconds, FOREVER),
        "lenience": promises.LENIENCE,
        "like": terms.like,
        "owner_living": terms.owner_living,
        "owner_seconds": terms.owner_seconds,
        "owner_daily": terms.owner_daily,
    }


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
