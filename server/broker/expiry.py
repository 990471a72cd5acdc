"""What ends by itself: queued generations at their deadline, records when they were kept for long
enough; and what a generation that is no more answers to who asks for it.

Both times are scores of sorted sets, written together with what they are about, so that looking for
what is due costs the same however much is not. A record is over at its time to the millisecond,
whether somebody has cleaned up or not: who reads it looks at the clock.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from redis import Redis

from server.broker import control, keys
from server.broker.leftovers import Leftovers
from server.broker.patience import translated
from server.broker.record import Generation
from server.broker.turns import Turn
from server.errors import Gone, NotFound
from server.spec import GENERATION_ID, GenerationState

log = logging.getLogger("darkroom.broker")

LOOK_AGAIN_SECONDS = 10.0
"""When to look again at what runs although its deadline has passed: its worker ends it, or whoever
takes it over."""

BURY = """
-- KEYS: record, events, attempts, expiring, deliveries
-- ARGV: id, now, what the owners' lists begin with, for how many milliseconds a tombstone stays
local about = redis.call('HMGET', KEYS[1], 'owner', 'finished_at', 'expires_at', 'status')
if about[3] and (tonumber(about[3]) or 0) > tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[4], about[3], ARGV[1])
  return 0
end
redis.call('ZREM', KEYS[4], ARGV[1])
if not (about[1] and about[3] and about[4]) then return 0 end
local left, ended = redis.call('PTTL', KEYS[1]), about[2] or about[3]
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', ARGV[3] .. about[1], ARGV[1])
redis.call('HSET', KEYS[1], 'owner', about[1], 'finished_at', ended, 'expires_at', about[3])
redis.call('PEXPIRE', KEYS[1], left > 0 and left or ARGV[4])
return 1
"""


def check(id: str, raw: Mapping[bytes, bytes], *, owner: str, now: float) -> None:
    """Whether this owner may read the record now.

    Raises:
        NotFound: there is none, or it is another owner's.
        Gone: it was deleted, or was kept for as long as records are.
    """
    if raw.get(b"owner") != owner.encode():
        raise NotFound(f"there is no generation {id}")
    if b"deleted_at" in raw:
        raise Gone(f"{id} has been deleted")
    if is_over(raw, now):
        kept = _seconds(raw, b"expires_at") - _seconds(raw, b"finished_at")
        raise Gone(f"{id} has expired: records and images are kept for {_in_words(kept)}")


def is_over(raw: Mapping[bytes, bytes], now: float) -> bool:
    """Whether it is nothing but a tombstone, or is to become one. Which of both the janitor's clock
    has said: ours may be behind it."""
    return b"status" not in raw or now >= _seconds(raw, b"expires_at")


def _seconds(raw: Mapping[bytes, bytes], field: bytes) -> float:
    """Never, where it does not say so: of what has not ended, or ended before this was kept."""
    try:
        return float(raw.get(field, b"inf"))
    except ValueError:
        return math.inf


def _in_words(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


class Expiry:
    """What is due, as a gateway sees it. Times are seconds since the epoch, of the callers' clocks.

    Raises:
        BrokerUnavailable: by any of its methods.
    """

    def __init__(
        self, redis: Any, blocking: Redis, *, retention: int, leftovers: Leftovers
    ) -> None:
        self._redis = redis
        self._blocking = blocking
        self._retention = retention
        self._leftovers = leftovers
        self._bury = redis.register_script(BURY)
        self.turn = Turn(redis, keys.JANITOR)

    @translated
    async def overdue(self, now: float, most: int) -> list[str]:
        """Generations that have not ended and whose deadline has passed, so many at most."""
        return await self._due(keys.DEADLINES, now, most)

    @translated
    async def end(self, id: str, now: float) -> bool:
        """End an overdue one if it is queued; whether it was this that ended it."""
        try:
            generation = await asyncio.to_thread(control.read, self._blocking, id)
        except ValueError as error:
            log.error("a record cannot be read: %s", type(error).__name__, extra=_about(id))
            generation = None
        if generation is None or generation.terminal:
            await self._forget(id, generation)
            return False
        if generation.status is GenerationState.QUEUED and now >= generation.deadline:
            return await self.end_queued(generation)
        later = max(generation.deadline, now + LOOK_AGAIN_SECONDS)
        await self._redis.zadd(keys.DEADLINES, {id: later}, xx=True)
        return False

    async def _forget(self, id: str, generation: Generation | None) -> None:
        """It needs no end. What a worker of the version before has ended still counts as alive."""
        async with self._redis.pipeline() as pipe:
            pipe.zrem(keys.DEADLINES, id)
            if generation is not None:
                pipe.srem(keys.living(generation.owner), id)
            await pipe.execute()

    async def end_queued(self, generation: Generation) -> bool:
        """The same of one that was read just now."""
        ended = await asyncio.to_thread(
            control.expire, self._blocking, generation, retention=self._retention
        )
        self._leftovers.clear(ended, GenerationState.EXPIRED)
        return ended is not None

    @translated
    async def over(self, now: float, most: int) -> list[str]:
        """Generations whose record has been kept for long enough, so many at most."""
        return await self._due(keys.EXPIRING, now, most)

    @translated
    async def bury(self, id: str, now: float) -> bool:
        """Leave a tombstone where a record that is over was; whether there was one. Its files must
        be gone by now: nobody would look for them again."""
        names = [keys.generation(id), keys.events(id), keys.attempts(id)]
        return bool(
            await self._bury(
                keys=[*names, keys.EXPIRING, keys.DELIVERIES],
                args=[id, repr(now), keys.owned(""), self._retention * 1000],
            )
        )

    @translated
    async def postpone(self, id: str, until: float) -> None:
        """Look at one that is over again later: its files cannot be removed now."""
        await self._redis.zadd(keys.EXPIRING, {id: until}, xx=True)

    async def _due(self, key: str, now: float, most: int) -> list[str]:
        found = await self._redis.zrangebyscore(key, "-inf", now, start=0, num=most)
        if strange := [id for id in found if not re.fullmatch(GENERATION_ID.encode(), id)]:
            log.error("dropped from %s what is no id: %.80r", key, strange[0])
            await self._redis.zrem(key, *strange)
        return [id.decode() for id in found if id not in strange]


def _about(id: str) -> dict[str, str]:
    return {"generation": id}
