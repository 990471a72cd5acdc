"""How long a gateway bears with Redis, and what it says when that is over."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from redis.exceptions import RedisError

from server.errors import BrokerUnavailable

P = ParamSpec("P")
T = TypeVar("T")

TIMEOUT_SECONDS = 0.8
PATIENCE_SECONDS = 1.7
"""A command is tried twice, but a caller knows within two seconds that Redis is away."""


def translated(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Turn what Redis raises into `BrokerUnavailable`, at this one seam."""

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await method(*args, **kwargs)
        except (RedisError, OSError) as error:
            reason = "the queue cannot be reached, or refuses writes"
            raise BrokerUnavailable(reason, retry_after=2.0) from error

    return call
