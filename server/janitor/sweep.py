"""Compares all that lies in the image store with the records, and removes what none of them names:
what gateways and workers that were killed have left.

Only folders named as generations are, and only files of generations that have no record, though
they are old enough to have one, or that have ended. A store is marked as that of one Redis: with
another one, or one that has lost its data, every picture would look like a leftover.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Collection, Sequence

from server.broker import Sweeps
from server.errors import NotFound
from server.metrics import GatewayMetrics
from server.spec import GENERATION_ID, made_at
from server.storage import Folder, ImageStore

log = logging.getLogger("darkroom.janitor")

MARK = "darkroom.id"
YOUNG_SECONDS = 3600.0
"""A younger generation may have no record yet."""
BATCH = 25
"""Folders whose records are read at once; between two batches requests have their turn."""
TURN_SECONDS = 60.0


class Sweep:
    """Every so many seconds; 0: never."""

    def __init__(
        self, sweeps: Sweeps, store: ImageStore, metrics: GatewayMetrics, *, every: float
    ) -> None:
        self.every = every
        self._sweeps = sweeps
        self._store = store
        self._metrics = metrics

    async def run(self, now: float) -> None:
        """From one end of the store to the other, if it is time and this gateway's turn.

        Raises:
            Unavailable: Redis or the store is away.
        """
        if not await self._sweeps.due() or not await self._sweeps.turn.take(TURN_SECONDS):
            return
        if await self._is_ours():
            await self._all(now)
            await self._sweeps.done(self.every)
        await self._sweeps.turn.give()

    async def _is_ours(self) -> bool:
        mark = await self._sweeps.mark()
        try:
            found = (await self._store.get(MARK)).decode(errors="replace")
        except NotFound:
            await asyncio.to_thread(self._store.put, MARK, mark.encode())
            return True
        if found != mark:
            log.warning(
                "the image store is not swept: it belongs to another Redis, or this one has lost "
                "its data; remove %s from the store if all in it may be compared with this Redis",
                MARK,
            )
        return found == mark

    async def _all(self, now: float) -> None:
        began, seen, removed = time.monotonic(), 0, 0
        async for batch in _batches(self._store.folders()):
            seen += len(batch)
            ours = [each for each in batch if _is_old_enough(each.name, now)]
            removed += await self._compare(ours)
            if not await self._sweeps.turn.take(TURN_SECONDS):
                log.warning("another gateway sweeps the image store, too: left to it")
                return
        seconds = time.monotonic() - began
        log.info(
            "swept the image store: %d folders, %d files removed, %.1f s", seen, removed, seconds
        )

    async def _compare(self, folders: Sequence[Folder]) -> int:
        """Remove from these what is not needed; how many files that were."""
        removed = 0
        needs = await self._sweeps.needed([folder.name for folder in folders]) if folders else []
        for folder, needed in zip(folders, needs, strict=True):
            if needed is not None:
                removed += await self._clean(folder, needed)
        self._metrics.swept_files_total.inc(removed)
        return removed

    async def _clean(self, folder: Folder, needed: Collection[str]) -> int:
        stale = [key for key in folder.keys if key not in needed]
        if not needed:
            await self._store.clear(folder.name)
        elif stale:
            await self._store.delete(*stale)
        return len(stale)


def _is_old_enough(name: str, now: float) -> bool:
    return bool(re.fullmatch(GENERATION_ID, name)) and made_at(name) < now - YOUNG_SECONDS


async def _batches(folders: AsyncIterator[Folder]) -> AsyncIterator[list[Folder]]:
    batch: list[Folder] = []
    async for folder in folders:
        batch.append(folder)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch
