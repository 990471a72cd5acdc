"""Ends queued generations that are overdue, and removes finished ones with their images when they
were kept for long enough. One task in each gateway; of all gateways, one works at a time.

Files are removed before the record is: a death in between leaves a record that is over, which
answers 410 already and is found again, never a file that nobody knows of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable

from server.broker import Broker
from server.errors import BrokerUnavailable, Unavailable
from server.janitor.sweep import Sweep
from server.metrics import GatewayMetrics
from server.storage import ImageStore

log = logging.getLogger("darkroom.janitor")

ROUND_SECONDS = 2.0
BATCH = 100
PARALLEL = 8
"""Generations whose files are removed at once: an object store takes its time for each."""
TURN_SECONDS = 15.0
"""After so long without a sign of life, another gateway goes on."""
POSTPONED_SECONDS = 60.0
"""When to try again what the store refused to remove."""
FIRST_SWEEP_SECONDS = 60.0
"""A gateway that has just started has other things to do."""
SWEEP_LOOK_SECONDS = 30.0


class Janitor:
    """`sweep_seconds`: from one sweep to the next; 0: never. `clock` is that of the records."""

    def __init__(
        self,
        broker: Broker,
        store: ImageStore,
        metrics: GatewayMetrics,
        *,
        sweep_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._expiry = broker.expiry
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._sweep = Sweep(broker.sweeps, store, metrics, every=sweep_seconds)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, in the background."""
        self._tasks.append(asyncio.create_task(self._go_round(), name="darkroom-janitor"))
        if self._sweep.every:
            self._tasks.append(asyncio.create_task(self._go_sweeping(), name="darkroom-sweep"))

    async def stop(self) -> None:
        """Leave things as they are; another gateway goes on, or the next one here."""
        while running := [task for task in self._tasks if not task.done()]:
            for task in running:
                task.cancel()  # again where redis-py swallowed it while it connected
            await asyncio.wait(running, timeout=0.1)
        with contextlib.suppress(BrokerUnavailable):
            await self._expiry.turn.give()

    async def round(self, now: float) -> None:
        """All that is due now, if it is this gateway's turn.

        Raises:
            BrokerUnavailable: the rest is still due.
        """
        if await self._expiry.turn.take(TURN_SECONDS):
            await self._end_overdue(now)
            await self._remove_over(now)

    async def sweep(self, now: float) -> None:
        """Compare the whole store with the records, if it is time and this gateway's turn.

        Raises:
            Unavailable: Redis or the store is away; the next sweep finds the rest.
        """
        await self._sweep.run(now)

    async def _end_overdue(self, now: float) -> None:
        while ids := await self._expiry.overdue(now, BATCH):
            for id in ids:
                if await self._expiry.end(id, now):
                    self._metrics.queued_expired_total.inc()
                if not await self._still_ours():
                    return

    async def _remove_over(self, now: float) -> None:
        while ids := await self._expiry.over(now, PARALLEL):
            removed = await asyncio.gather(*(self._remove(id, now) for id in ids))
            if not all(removed) or not await self._still_ours():
                return

    async def _remove(self, id: str, now: float) -> bool:
        """False where the store refuses. It is asked for others next time, so that one that cannot
        be removed keeps no other."""
        try:
            await self._store.clear(id)
        except Unavailable as error:
            log.warning("cannot be removed yet: %s", error, extra={"generation": id})
            await self._expiry.postpone(id, now + POSTPONED_SECONDS)
            return False
        if await self._expiry.bury(id, now):
            self._metrics.records_expired_total.inc()
        return True

    async def _still_ours(self) -> bool:
        return await self._expiry.turn.take(TURN_SECONDS)

    async def _go_round(self) -> None:
        while True:
            await _tried(self.round(self._clock()))
            await asyncio.sleep(ROUND_SECONDS)

    async def _go_sweeping(self) -> None:
        await asyncio.sleep(FIRST_SWEEP_SECONDS * random.uniform(1, 1.5))
        while True:
            await _tried(self.sweep(self._clock()))
            await asyncio.sleep(min(SWEEP_LOOK_SECONDS, self._sweep.every))


async def _tried(work: Awaitable[None]) -> None:
    """What it could not do it finds again the next time."""
    try:
        await work
    except BrokerUnavailable as error:
        log.debug("%s; looking again", error.message)
    except Unavailable as error:
        log.warning("%s; looking again", error.message)
    except Exception:  # without this task nothing would be removed any more
        log.exception("an unexpected error, looking again")
