"""What the stages of a chain have handed on, removed from the image store when the gateway ends it.

Knows the store by one function only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from server.broker.record import Generation
from server.errors import Unavailable

log = logging.getLogger("darkroom.broker")

Discard = Callable[..., Awaitable[None]]
"""Removes keys from the store; what is not there is no error."""


class Leftovers:
    """Best effort, in the background: deleting a generation removes them too."""

    def __init__(self, discard: Discard) -> None:
        self._discard = discard
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for what has begun."""
        await asyncio.gather(*self._tasks)

    def clear(self, ended: Generation | None) -> None:
        """Begin to remove those of a generation that has just been ended, if one has.

        For after its record says so: a death in between leaves a file that nobody needs, never a
        stage without what it starts from.
        """
        if ended is not None and ended.leftovers:
            task = asyncio.create_task(self._clear(ended))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _clear(self, ended: Generation) -> None:
        try:
            await self._discard(*ended.leftovers)
        except Unavailable as error:
            log.warning("left in the store: %s", error, extra={"generation": ended.id})


async def keep(*keys: str) -> None:
    """For a broker without a store."""
