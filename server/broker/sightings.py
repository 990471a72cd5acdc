"""When each account was last here, to the minute: remembered by a gateway at each request, and
written down for all of them at once, so that it costs no request anything."""

from __future__ import annotations

import asyncio
from typing import Any

from server.broker import keys
from server.broker.patience import translated
from server.errors import BrokerUnavailable

WRITE_SECONDS = 20.0
"""How late it can be read. A gateway that is killed forgets as much."""
MINUTE = 60


class Sightings:
    """One per gateway process."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._fresh: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, id: str, at: float) -> None:
        """It was here."""
        self._fresh[id] = int(at) // MINUTE * MINUTE

    def start(self) -> None:
        """Write them down now and then."""
        self._task = asyncio.create_task(self._write_on(), name="darkroom-sightings")

    async def stop(self) -> None:
        """Write down the last of them."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again where redis-py swallowed it while it connected
            await asyncio.wait([self._task], timeout=0.1)
        await self._write()

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self._write()

    async def _write(self) -> None:
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, {}
        try:
            await self._send(fresh)
        except BrokerUnavailable:
            self._fresh = fresh | self._fresh

    @translated
    async def _send(self, seen: dict[str, int]) -> None:
        # Greater than: gateways write in any order.
        await self._redis.zadd(keys.SEEN, seen, gt=True)
