"""Calls of webhooks that are due: a queue that outlives every gateway, and what came of each call.

A generation with a webhook is put in the queue when it is accepted, to be looked at when it expires
at the latest; whatever ends it makes it due in the same transaction. A gateway that claims one has
it for `LEASE_SECONDS`: by then it has written what came of it, or another gateway may claim it. So
each is called at least once, and twice only where a gateway was killed in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from server.broker import keys
from server.broker.patience import translated
from server.spec import Frozen

LEASE_SECONDS = 60.0
MAX_ATTEMPTS = 100
"""Kept of one generation; only who has it delivered again and again gets there."""

CLAIM = """
-- KEYS: deliveries
-- ARGV: now, until when they are ours, how many at most, where records begin
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  local about = redis.call('HMGET', ARGV[4] .. id, 'owner', 'webhook', 'webhook_tries')
  if about[1] and about[2] then
    redis.call('ZADD', KEYS[1], ARGV[2], id)
    claimed[#claimed + 1] = {id, about[1], about[3] or '0'}
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return claimed
"""

SETTLE = """
-- KEYS: deliveries, record, attempts
-- ARGV: id, until when it was ours, attempt or '', its state, when to look again or '', most kept
if redis.call('HEXISTS', KEYS[2], 'webhook') == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 0
end
if ARGV[3] ~= '' and redis.call('LINDEX', KEYS[3], -1) ~= ARGV[3] then
  redis.call('RPUSH', KEYS[3], ARGV[3])
  redis.call('LTRIM', KEYS[3], '-' .. ARGV[6], -1)
  local left = redis.call('PTTL', KEYS[2])
  if left > 0 then redis.call('PEXPIRE', KEYS[3], left) end
end
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[2], 'webhook_state', ARGV[4])
if ARGV[3] ~= '' then redis.call('HINCRBY', KEYS[2], 'webhook_tries', 1) end
if ARGV[5] ~= '' then
  redis.call('ZADD', KEYS[1], ARGV[5], ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
"""

AGAIN = """
-- KEYS: deliveries, record
-- ARGV: id, now
local about = redis.call('HMGET', KEYS[2], 'webhook', 'finished_at')
if not (about[1] and about[2]) then return 0 end
redis.call('HSET', KEYS[2], 'webhook_state', 'pending', 'webhook_tries', 0)
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""


class DeliveryState(StrEnum):
    """What has become of the call of a webhook."""

    PENDING = "pending"
    """The generation has not ended, or it is to be called yet, for the first time or again."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """It was tried often enough, or is not wanted any more at the other end."""
    SKIPPED = "skipped"
    """The generation ended in a state that is not to be told."""


class Attempt(Frozen):
    """One call, and what came of it."""

    at: float
    status: int | None = None
    error: str | None = None
    seconds: float


@dataclass(frozen=True, slots=True)
class Due:
    """A webhook that is ours to call, `until` then."""

    id: str
    owner: str
    tries: int
    """How often it was called in vain since it was first due, or was asked for again."""
    until: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the call of a generation's webhook stands."""

    state: DeliveryState
    attempts: Sequence[Attempt]
    due_at: float | None
    """When it is looked at next; while it is being called, when another gateway would."""


class Deliveries:
    """The queue, as a gateway sees it. Times are seconds since the epoch, of the callers' clocks.

    Raises:
        BrokerUnavailable: by any of its methods.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._claim = redis.register_script(CLAIM)
        self._settle = redis.register_script(SETTLE)
        self._again = redis.register_script(AGAIN)

    @translated
    async def claim(self, now: float, most: int) -> list[Due]:
        """What is due, so many at most; those whose record is gone are forgotten."""
        until = now + LEASE_SECONDS
        found = await self._claim(
            keys=[keys.DELIVERIES], args=[repr(now), repr(until), most, keys.generation("")]
        )
        return [Due(id.decode(), owner.decode(), int(tries), until) for id, owner, tries in found]

    @translated
    async def settle(
        self,
        due: Due,
        state: DeliveryState,
        *,
        attempt: Attempt | None = None,
        again_at: float | None = None,
    ) -> bool:
        """Write what came of it, and when to look again if at all. The attempt is kept in any case,
        the rest only where nothing has changed since it was claimed; False if something had."""
        return bool(
            await self._settle(
                keys=[keys.DELIVERIES, keys.generation(due.id), keys.attempts(due.id)],
                args=[
                    due.id,
                    repr(due.until),
                    "" if attempt is None else attempt.model_dump_json(),
                    state.value,
                    "" if again_at is None else repr(again_at),
                    MAX_ATTEMPTS,
                ],
            )
        )

    @translated
    async def again(self, id: str, now: float) -> None:
        """Have it called again, with all its tries, however it went before. Nothing happens where
        the generation has not ended: it will be called then."""
        await self._again(keys=[keys.DELIVERIES, keys.generation(id)], args=[id, repr(now)])

    @translated
    async def read(self, id: str) -> Delivery:
        """Where it stands. Of a generation without a webhook, this says nothing."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hget(keys.generation(id), "webhook_state")
            pipe.lrange(keys.attempts(id), 0, -1)
            pipe.zscore(keys.DELIVERIES, id)
            state, attempts, due_at = await pipe.execute()
        return Delivery(
            DeliveryState((state or b"pending").decode()),
            [Attempt.model_validate_json(attempt) for attempt in attempts],
            due_at,
        )
