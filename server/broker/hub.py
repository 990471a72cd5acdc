"""One Redis subscription for a whole gateway process, fanned out to any number of waiters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from server.broker import keys

log = logging.getLogger("darkroom.hub")

RECONNECT_SECONDS = 0.25
REFUSED = (AuthenticationError, ResponseError)
"""What a Redis says that is there and does not let us in."""


class Hub:
    """Wakes who waits for a generation; after a lost connection everyone, to look again."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""
        self.released = False

    async def start(self) -> None:
        """Subscribe in the background; needs no Redis yet."""
        self._task = asyncio.create_task(self._listen(), name="darkroom-hub")

    async def stop(self) -> None:
        """Unsubscribe, and wake everyone a last time."""
        self.release()
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again where redis-py swallowed it while it connected
            await asyncio.wait([self._task], timeout=0.1)

    def release(self) -> None:
        """Let go of everyone who waits, now and from now on: the process is about to end."""
        self.released = True
        self._wake_all()

    @contextlib.contextmanager
    def watch(self, id: str, kind: str = "") -> Iterator[asyncio.Event]:
        """An event that is set with every change of the generation, or only with those of one kind;
        the waiter clears it.

        Look at the generation after entering, not before: what changes in between would be missed.
        """
        name = f"{id} {kind}" if kind else id
        event = asyncio.Event()
        if self.released:
            event.set()
        self._waiters[name].add(event)
        try:
            yield event
        finally:
            self._waiters[name].discard(event)
            if not self._waiters[name]:
                del self._waiters[name]

    @property
    def waiting(self) -> int:
        """How many waiters there are. May be read on any thread."""
        return sum(map(len, list(self._waiters.values())))

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(keys.CHANGES)
                    async for message in pubsub.listen():
                        self._hear(message)
            except (RedisError, OSError) as error:
                self._lost(error)
            except Exception:  # without this task everyone who waits would be left to LOOK_SECONDS
                log.exception("an unexpected error, subscribing again")
            await asyncio.sleep(RECONNECT_SECONDS)

    def _lost(self, error: Exception) -> None:
        """Told once, and once more where it answers but does not let us in: it is tried again all
        the time."""
        state = "refuses us" if isinstance(error, REFUSED) else "is away"
        if state != self._trouble:
            log.warning("Redis %s, so changes are not heard of; trying again: %s", state, error)
        self._trouble = state

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":  # only now nothing is missed any more
            if self._trouble:
                log.info("Redis is back, changes are heard of again")
            self._trouble = ""
            self._wake_all()
        else:
            change = message["data"].decode(errors="replace")
            self._wake(change.partition(" ")[0])
            self._wake(change)

    def _wake(self, name: str) -> None:
        for event in self._waiters.get(name, ()):
            event.set()

    def _wake_all(self) -> None:
        for events in self._waiters.values():
            for event in events:
                event.set()
