"""What is left to do when the gateway ends what is queued: it is told of, and what the stages of a
chain have handed on is removed from the image store.

Knows the store by one function only, and who is told by another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from server.broker.record import Generation
from server.errors import Unavailable
from server.spec import GenerationState

log = logging.getLogger("darkroom.broker")

Discard = Callable[..., Awaitable[None]]
"""Removes keys from the store; what is not there is no error."""
Tell = Callable[[Generation, GenerationState], None]
"""Told of a generation, as it was in the queue, and of the state that it ended in. Returns at
once."""


class Leftovers:
    """Best effort, in the background: deleting a generation removes them too."""

    def __init__(self, discard: Discard, tell: Tell) -> None:
        self._discard = discard
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for what has begun."""
        await asyncio.gather(*self._tasks)

    def clear(self, ended: Generation | None, state: GenerationState) -> None:
        """Tell of a generation that has just been ended, if one has, and begin to remove
        what its stages have handed on.

        For after its record says so: a death in between leaves a file that nobody needs, never a
        stage without what it starts from.
        """
        if ended is None:
            return
        self._tell(ended, state)
        if ended.leftovers:
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


def say_nothing(ended: Generation, state: GenerationState) -> None:
    """For a broker of whose ends nobody wants to know."""
