"""Who waits for a generation with an open connection, over all gateways.

A sorted set of waiters by the time until which they can be there: those of a gateway that was
killed are forgotten by themselves.
"""

from __future__ import annotations

import math
import time
from typing import Any

from server.broker import keys


async def attend(redis: Any, id: str, waiter: str, *, seconds: float) -> None:
    """`waiter` waits, for so long at most."""
    key = keys.waiting(id)
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zadd(key, {waiter: time.time() + seconds})
        pipe.expire(key, math.ceil(seconds) + 60)
        await pipe.execute()


async def leave(redis: Any, id: str, waiter: str) -> None:
    """`waiter` waits no more."""
    await redis.zrem(keys.waiting(id), waiter)


async def attended(redis: Any, id: str) -> bool:
    """Whether anybody waits."""
    return bool(await redis.zcount(keys.waiting(id), time.time(), math.inf))
