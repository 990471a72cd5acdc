"""What callers without an account have set for themselves, and what is being drawn for each.

A caller is a name that the gateway gives, here only a part of keys. Nothing here is lasting, and
anybody can be a new caller at any time: settings are forgotten when nobody has asked for them for a
week, or when too many others have made theirs since.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from server.broker import keys
from server.broker.patience import translated

SETTINGS_SECONDS = 7 * 86_400
AFTER_SECONDS = 600
"""How long it is known, beyond what it may take, that something was being drawn."""
MOST_CALLERS = 10_000
"""Whose settings are kept."""
MOST_DRAWING = 1000
"""Generations that are known to be drawn for one caller: the newest."""


class Sessions:
    """One per gateway process; they share what they know."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    @translated
    async def settings(self, caller: str) -> dict[str, Any]:
        """What the caller has set, by name."""
        key = keys.settings(caller)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(key)
            pipe.expire(key, SETTINGS_SECONDS)
            found, _ = await pipe.execute()
        return {name.decode(): json.loads(value) for name, value in found.items()}

    @translated
    async def set(self, caller: str, values: Mapping[str, Any]) -> None:
        """Lay these over what the caller has set."""
        if not values:
            return
        key = keys.settings(caller)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping={name: json.dumps(value) for name, value in values.items()})
            pipe.expire(key, SETTINGS_SECONDS)
            pipe.zadd(keys.CALLERS, {caller: time.time()})
            pipe.expire(keys.CALLERS, SETTINGS_SECONDS)
            pipe.zrange(keys.CALLERS, 0, -MOST_CALLERS - 1)
            *_, beyond = await pipe.execute()
        if beyond:
            await self._redis.delete(*(keys.settings(name.decode()) for name in beyond))
            await self._redis.zrem(keys.CALLERS, *beyond)

    @translated
    async def begin(self, caller: str, id: str, *, task: str, seconds: float) -> None:
        """A generation is being drawn for the caller, who calls it `task`; for so long at most."""
        key = keys.drawing(caller)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, id, task)
            pipe.expire(key, math.ceil(seconds) + AFTER_SECONDS)
            pipe.hlen(key)
            *_, count = await pipe.execute()
        if count > MOST_DRAWING:
            await self.end(caller, *[*await self.drawing(caller)][:-MOST_DRAWING])

    @translated
    async def end(self, caller: str, *ids: str) -> None:
        """These are not being drawn any more."""
        if ids:
            await self._redis.hdel(keys.drawing(caller), *ids)

    @translated
    async def drawing(self, caller: str) -> dict[str, str]:
        """What is, or was lately, being drawn for the caller: ids, oldest first, and what the
        caller calls them."""
        found = await self._redis.hgetall(keys.drawing(caller))
        return {id.decode(): task.decode() for id, task in sorted(found.items())}
