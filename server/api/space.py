"""Whether the image store has room for more: looked at once a second at most, beside the requests.

What was accepted is drawn and kept even so; only new generations are refused, while there is still
room for those.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from server.errors import StorageFull, Unavailable
from server.metrics import GatewayMetrics
from server.storage import ImageStore

log = logging.getLogger("darkroom.storage")

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 1.0
"""With a look, before the last one counts."""
HANGS_SECONDS = 10.0
"""A look that takes longer has found something."""
RETRY_SECONDS = 30.0
"""Room comes back when somebody makes it, or when what was kept for long enough goes."""


class Space:
    """One per gateway. `min_free_bytes`: 0 where room does not matter."""

    def __init__(self, store: ImageStore, metrics: GatewayMetrics, *, min_free_bytes: int) -> None:
        self._store = store
        self._metrics = metrics
        self._floor = min_free_bytes
        self._looked = -LOOK_SECONDS
        self._looking = False
        self._found: Unavailable | None = None

    async def check(self) -> None:
        """Go by the last look, and look again where that is old.

        Raises:
            StorageFull: less is left than there must be.
            Unavailable: the store is not there, or may not be written.
        """
        since = time.monotonic() - self._looked
        if not self._looking and since >= LOOK_SECONDS:
            await self._look()
        elif self._looking and since >= HANGS_SECONDS:
            self._tell(Unavailable("the image store does not answer", retry_after=2.0))
        if self._found is not None:
            raise type(self._found)(self._found.message, retry_after=self._found.retry_after)

    async def _look(self) -> None:
        """One at a time: where a file system hangs, the others go by what was found before."""
        self._looking, self._looked = True, time.monotonic()
        look = asyncio.get_running_loop().run_in_executor(None, self._free)
        look.add_done_callback(self._seen)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.shield(look)

    def _seen(self, look: asyncio.Future[Unavailable | None]) -> None:
        self._looking, self._looked = False, time.monotonic()
        if not look.cancelled():
            self._tell(look.result())

    def _tell(self, found: Unavailable | None) -> None:
        """When it changes, with the numbers: who asks without a key is not told those."""
        if found is not None and type(found) is not type(self._found):
            log.warning("new generations are refused: %s", found.message)
        elif found is None and self._found is not None:
            log.info("the image store takes more again")
        self._found = found

    def _free(self) -> Unavailable | None:
        """What is wrong, if something is."""
        try:
            free = self._store.free_bytes()
        except Unavailable as error:
            return error
        if free is None:
            return None
        self._metrics.store_free_bytes.set(free)
        if free >= self._floor:
            return None
        short = f"the image store has {_in_mib(free)} left, and keeps {_in_mib(self._floor)} free"
        return StorageFull(short, retry_after=RETRY_SECONDS)


def _in_mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
