"""How fast this worker is: as it measured when it warmed up, corrected by every step since."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from server import forecast
from server.forecast import Load, Speed
from server.stages import Stage
from server.workers.engine import Step

SMOOTHING = 0.05
"""Weight of the newest step; about twenty of them make the correction."""
LEAST, MOST = 0.1, 10.0
LEAST_SHALLOW = 0.01
"""Of a whole step; on a large device a shallow one is bound by its launches."""


class Meter:
    """One thread tells it of steps; any may ask. None as speed: nothing was measured, and every
    answer is 0.

    Args:
        too_large: pixels of a picture that did not fit lately, even alone.
    """

    def __init__(
        self,
        speed: Speed | None,
        clock: Callable[[], float] = time.monotonic,
        too_large: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._measured = speed
        self._clock = clock
        self._too_large = too_large
        self._ended_at: float | None = None
        self._drift = 1.0
        self._shallow = 1.0

    @property
    def speed(self) -> Speed | None:
        """As far as is known now."""
        if self._measured is None:
            return None
        largest = self._measured.largest_pixels
        if too_large := self._too_large():
            largest = min(largest or too_large, max(1, too_large - 1))
        known = {"drift": round(self._drift, 3), "largest_pixels": largest}
        return self._seen(self._measured).model_copy(update=known)

    @property
    def drift(self) -> float:
        """How much longer steps take now than when they were measured."""
        return self._drift

    def adopt(self, speed: Speed) -> None:
        """It was measured once more; what fits in memory is known from before."""
        known = {"largest_pixels": self._measured.largest_pixels} if self._measured else {}
        self._measured, self._drift = speed.model_copy(update=known), 1.0

    def stepped(self, step: Step) -> None:
        """A step has ended just now. What was between it and the one before counts as its own."""
        now, before = self._clock(), self._ended_at
        self._ended_at = now
        if self._measured is None or not step.rows:
            return
        seconds = step.seconds if before is None else now - before - step.decode_seconds
        rows = self._measured.native_rows(step.rows, step.pixels)
        ratio = max(step.seconds, seconds) / max(self._measured.step_seconds(rows), 1e-9)
        if step.shallow:
            self._learn(ratio / self._drift)
        else:
            self._drift += SMOOTHING * (min(MOST, max(LEAST, ratio)) - self._drift)

    def rest(self) -> None:
        """There is nothing to step: what comes before the next step is no part of it."""
        self._ended_at = None

    def load(self, stage: Stage) -> Load:
        """What a stage takes of this device, as it was measured."""
        if self._measured is None:
            return Load()
        work = forecast.work(stage, self._seen(self._measured))
        whole = Load(forecast.native_rows(stage, self._measured), work, work)
        return whole.left(1.0, stage.spec.num_images)

    def total(self, loads: Sequence[Load]) -> Load:
        """What these take together, as things are now."""
        return Load(
            rows=sum(load.rows for load in loads),
            held_seconds=self._drift * sum(load.held_seconds for load in loads),
            work_seconds=self._drift * sum(load.work_seconds for load in loads),
            each=" ".join(load.each for load in loads),
        )

    def duration(self, stage: Stage) -> float:
        """Seconds that a stage takes here at best: nothing is drawn beside it, and nothing slows it
        down that did so lately."""
        if self._measured is None:
            return 0.0
        seen = self._seen(self._measured)
        quickest = seen.model_copy(update={"drift": min(1.0, self._drift)})
        return forecast.duration(stage, quickest)

    def _learn(self, share: float) -> None:
        """What a shallow step took of a whole one. The first tells more than that nothing is
        known."""
        share = min(1.0, max(LEAST_SHALLOW, share))
        weight = 1.0 if self._shallow == 1.0 else SMOOTHING
        self._shallow += weight * (share - self._shallow)

    def _seen(self, measured: Speed) -> Speed:
        """With what was seen since."""
        return measured.model_copy(update={"shallow": round(self._shallow, 3)})
