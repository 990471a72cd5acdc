"""Open event streams, counted and bounded by owner: each holds a connection for as long as it
likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

from server.errors import TooManyStreams
from server.metrics import GatewayMetrics

AGAIN_SECONDS = 5.0


class Streams:
    """Those of one gateway process."""

    def __init__(self, most: int, metrics: GatewayMetrics) -> None:
        self._most = most
        self._gauge = metrics.event_streams
        self._open: Counter[str] = Counter()

    def expect_room(self, owner: str) -> None:
        """Before anything is done for another stream.

        Raises:
            TooManyStreams: the owner has as many as one may have.
        """
        if self._open[owner] >= self._most:
            message = f"{self._most:,} event streams are open already; close one, or ask again"
            raise TooManyStreams(message, retry_after=AGAIN_SECONDS)

    def counted(self, owner: str, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same, seen as one of the owner's from now on, until it ends or is let go of."""
        self._open[owner] += 1
        self._gauge.inc()

        def ended() -> None:
            self._gauge.dec()
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]

        return _Counted(stream, ended)


class _Counted:
    """A generator would not do: one that is let go of before its first step does nothing."""

    def __init__(self, stream: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended: Callable[[], None] | None = ended

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._stream)
        except BaseException:  # its end, among others
            self._end()
            raise

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()
