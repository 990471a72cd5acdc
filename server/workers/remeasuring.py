"""Measuring once more, when there is nothing to draw, what a busy machine has disturbed.

What was measured at the start decides how many rows share a step, and all predictions; later steps
correct its scale, but not its shape. It is in doubt where it cannot be right, or where steps have
since taken clearly less. Then the warm-up runs again in a pause, and ends as soon as work comes.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from server.errors import OutOfMemory
from server.forecast import Speed
from server.workers.calls import Calls
from server.workers.engine import Engine
from server.workers.meter import Meter
from server.workers.warmup import WarmUp, alike

log = logging.getLogger("darkroom.warmup")

IDLE_SECONDS = 10.0
LONGEST_SECONDS = 600.0
QUICKER, SLOWER = 0.8, 1.5
"""Of what was measured: steps that take less say that it was measured on a busy machine, those that
took longer say nothing of the time after a pause."""

MOST_TOLD = 3
"""Doubts in one line of the log."""


class Interrupted(Exception):
    """There is something to draw."""


class Remeasuring:
    """Of one worker, on the thread that steps.

    Args:
        warm_up: that has run before; None: nothing is measured again.
        idle: whether nothing is in flight.
    """

    def __init__(
        self,
        warm_up: WarmUp | None,
        engine: Engine,
        meter: Meter,
        calls: Calls,
        *,
        idle: Callable[[], bool],
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._warm_up = warm_up
        self._engine = engine
        self._meter = meter
        self._calls = calls
        self._idle = idle
        self._dice = dice
        self._last = meter.speed
        self._seconds = IDLE_SECONDS
        self._doubted = False
        if warm_up is not None and warm_up.doubts:
            self._doubted = True
            self._tell(warm_up, logging.INFO)  # most machines are busy when a house starts

    def next(self, inbox: SimpleQueue[Callable[[], None]]) -> Callable[[], None]:
        """What comes next. While nothing does, what is in doubt is measured again."""
        warm_up = self._warm_up
        while warm_up is not None and self._wanted():
            with contextlib.suppress(Empty):
                # Workers that share a machine must not measure all at once.
                return inbox.get(timeout=self._seconds * (1 + self._dice()))
            with contextlib.suppress(Interrupted):
                self._measure(warm_up, inbox)
        return inbox.get()

    def _wanted(self) -> bool:
        speed = self._meter.speed
        return self._doubted or (speed is not None and not QUICKER <= speed.drift <= SLOWER)

    def _measure(self, warm_up: WarmUp, inbox: SimpleQueue[Callable[[], None]]) -> None:
        warm_up.call = lambda: self._call(inbox)
        try:
            speed = warm_up.run()
        except OutOfMemory as error:
            log.warning("it could not be measured again: %s", error)
        else:
            twice = self._last is not None and alike(self._last, speed)
            self._last = speed
            self._doubted = bool(warm_up.doubts) and not twice
            if self._doubted:
                self._tell(warm_up, logging.WARNING)
            else:
                self._adopt(warm_up, speed)
        self._seconds = min(LONGEST_SECONDS, 2 * self._seconds)

    @contextlib.contextmanager
    def _call(self, inbox: SimpleQueue[Callable[[], None]]) -> Iterator[None]:
        if not (self._idle() and inbox.empty()):
            raise Interrupted
        with self._calls.watched():
            yield

    def _adopt(self, warm_up: WarmUp, speed: Speed) -> None:
        self._meter.adopt(speed)
        self._engine.adopt(speed)
        if warm_up.full_rows is None:  # else an operator has said what a step may take
            cap = speed.full_rows * speed.native_pixels
            log.info("a step takes %d pixels at most", cap)
            self._engine.allow(cap)

    def _tell(self, warm_up: WarmUp, level: int) -> None:
        log.log(
            level,
            "the machine was busy with something else while this was measured (%s): predictions may"
            " be wrong, and too few pictures share a step, until it is measured again, when there "
            "is nothing to draw, or DARKROOM_MAX_STEP_PIXELS says how many",
            "; ".join(warm_up.doubts[:MOST_TOLD]),
        )
