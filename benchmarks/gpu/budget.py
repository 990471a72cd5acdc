"""Time that may be spent. What does not fit is not begun, and what outlasts it is cut off."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.gpu import BEGAN


class OutOfTime(BaseException):
    """No `Exception`: whoever tries again after a fault must not catch it."""


class Budget:
    """Seconds since the command began; without a number, as many as it takes."""

    def __init__(
        self,
        seconds: float = math.inf,
        began: float = BEGAN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._end = began + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._end - self._clock())

    def fits(self, seconds: float) -> bool:
        """Whether something that takes so long may be begun."""
        return seconds <= self.left

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """Whatever is run in here ends with the budget. For the main thread.

        Raises:
            OutOfTime: it did not end by itself.
        """
        if math.isinf(self._end):
            yield
            return
        before = signal.signal(signal.SIGALRM, _cut)
        signal.setitimer(signal.ITIMER_REAL, max(self.left, 1e-3))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _cut(number: int, frame: Any) -> None:
    raise OutOfTime
