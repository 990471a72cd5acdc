"""One Redis subscription for a whole gateway process, fanned out to any number of waiters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from server.broker import keys
from server.broker.sentinels import AsyncMasterConnection

log = logging.getLogger("darkroom.hub")

RECONNECT_SECONDS = 0.25
PING_SECONDS = 2.0
SILENT_SECONDS = 6.0
"""A connection that has not answered for so long is given up: it does not break by itself where the
machine at its other end is gone, or where Redis hangs while another has become the master."""
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
                    await self._follow(pubsub)
            except (RedisError, OSError) as error:
                self._lost(error)
            except Exception:  # without this task everyone who waits would be left to LOOK_SECONDS
                log.exception("an unexpected error, subscribing again")
            await asyncio.sleep(RECONNECT_SECONDS)

    # Any: the stubs of redis-py leave its methods untyped.
    async def _follow(self, pubsub: Any) -> None:
        clock, connection = asyncio.get_running_loop().time, pubsub.connection
        asking = None
        try:
            async with asyncio.timeout(SILENT_SECONDS) as silence:
                asking = asyncio.create_task(_ask(connection, lambda: silence.reschedule(clock())))
                async for message in pubsub.listen():
                    if message["type"] == "pong":
                        silence.reschedule(clock() + SILENT_SECONDS)
                    else:
                        self._hear(message)
        except TimeoutError as error:
            await connection.disconnect(nowait=True)  # to wait for it would take for ever
            raise ConnectionError("it does not answer, or is no master any more") from error
        finally:
            if asking is not None:
                asking.cancel()

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


async def _ask(connection: Any, give_up: Callable[[], None]) -> None:
    """For a sign of life, now and then, and whether another is the master. What breaks here, who
    listens hears of as well."""
    with contextlib.suppress(RedisError, OSError):
        while True:
            await asyncio.sleep(PING_SECONDS)
            if isinstance(connection, AsyncMasterConnection) and not await connection.follows():
                give_up()
            if connection.is_connected:
                await connection.send_command("PING")
