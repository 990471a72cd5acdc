"""How often somebody may come: sliding windows in Redis, the same at all gateways."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from server.broker import keys
from server.broker.patience import translated

WINDOW_SECONDS = 60


class Standing(NamedTuple):
    """What is left of a minute's share."""

    allowed: bool
    limit: int
    remaining: int
    seconds: float
    """Until there is more."""


class Rates:
    """One per gateway process."""

    def __init__(self, pool: Any) -> None:
        storage = RedisStorage(
            "async+redis://", implementation="redispy", key_prefix=keys.RATE, connection_pool=pool
        )
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    @translated
    async def come(self, who: str, limit: int) -> Standing:
        """Somebody comes once more, who may come so often in a minute."""
        item = RateLimitItemPerMinute(limit)
        allowed = await self._limiter.hit(item, who)
        reset_at, remaining = await self._limiter.get_window_stats(item, who)
        return Standing(allowed, limit, remaining, max(0.0, reset_at - time.time()))
