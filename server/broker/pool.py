"""The connections of one gateway: so many and no more, and whoever comes later waits. Where they
lead, `dial` knows."""

from __future__ import annotations

import asyncio
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry
from redis.asyncio import ConnectionPool
from redis.backoff import ExponentialBackoff

from server.broker.dial import dial, dial_async
from server.broker.patience import TIMEOUT_SECONDS

MAX_CONNECTIONS = 64
BACKOFF = ExponentialBackoff(cap=0.2, base=0.05)


# Any: redis-py's stubs give every reply as bytes | str, whatever the client decodes.
def pooled(url: str) -> Any:
    """For all who may not wait; a command whose connection breaks is sent once more."""
    return dial_async(
        url,
        QueueingPool,
        retry=redis.asyncio.retry.Retry(BACKOFF, 1),
        retry_on_error=[redis.exceptions.ConnectionError],
        socket_connect_timeout=TIMEOUT_SECONDS,
        # Callers have their own (`translated`); redis-py would make a task for each command.
        socket_timeout=None,
    )


def blocking(url: str) -> redis.Redis:
    """The same for threads."""
    return dial(
        url,
        retry=redis.retry.Retry(BACKOFF, 1),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
    )


def subscribing(url: str) -> Any:
    """For one who listens all the time, and tries again by itself."""
    return dial_async(url, socket_connect_timeout=TIMEOUT_SECONDS)


class QueueingPool(ConnectionPool):
    """A command that finds every connection in use waits for its turn, as long as its caller does.

    redis-py's own BlockingConnectionPool does that as well, but costs a gateway 40 us more for each
    accepted generation, a twelfth of all that one may cost.
    """

    def __init__(self, **options: Any) -> None:
        # Bounded by turns alone: the pool itself raises where it reaches a bound.
        super().__init__(**(options | {"max_connections": 2**31}))
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """A connection that is open and has nothing left to read."""
        await self._turns.acquire()
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Give it back, and let the next one have its turn."""
        try:
            await super().release(connection)
        finally:
            self._turns.release()
