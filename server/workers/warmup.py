"""What a worker measures before it says it is ready: step time against rows and pixels, the time of
a decoding, and the memory that both need.

Whatever else the machine does meanwhile makes a call take longer, never shorter. So the least of a
few tries counts; where even those cannot be right, that is said, and measured again later.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from server.catalog import Card
from server.errors import NotFinite, OutOfMemory
from server.forecast import Speed
from server.workers.denoiser import Denoiser, State
from server.workers.native import native_inputs, native_stage
from server.workers.planner import worthwhile_rows

log = logging.getLogger("darkroom.warmup")

BUDGET_SECONDS = 10.0
REPEATS = 3
USABLE = 0.9
"""Of the memory that is free: it is never in one piece."""
LEAST_EXPONENT, MOST_EXPONENT = 0.5, 1.6
"""What is measured beyond was disturbed: attention grows with the square of the pixels, all else
with them."""
GAIN = 0.95
"""Of the cost of a row, at which more rows are still worth trying."""
UNSTEADY = 1.5
"""Times the least of a few tries; where all others took longer, the least may be no measure."""
CHEAPER, DEARER = 0.8, 1.5
"""More rows take no less time than fewer, but for this share, and a row of them no more."""
ALIKE = 0.1
"""What two runs may differ by, as a share, and have measured the same."""


class Gauge(Protocol):
    """Of a device's memory."""

    def begin(self) -> None:
        """From now on the peak is another one."""

    def grown_bytes(self) -> int:
        """The most that was in use since then, more than then; 0 where that is not known."""

    def free_bytes(self) -> int:
        """That could be had now; 0 where that is not known."""


@dataclass(slots=True)
class WarmUp:
    """Runs on the thread that steps, while nothing is drawn.

    Args:
        max_rows: more are never drawn together.
        full_rows: so many share a step, whatever is measured, if the operator has said so; then
            little is measured.
        call: around each call to the device.
    """

    denoiser: Denoiser
    card: Card
    max_rows: int
    gauge: Gauge
    full_rows: int | None = None
    clock: Callable[[], float] = time.perf_counter
    call: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    doubts: list[str] = field(default_factory=list)
    """Why the last run cannot be right; empty where all is well."""
    _needed_bytes: int = 0
    _filled: bool = False
    """More rows than were measured do not fit."""

    def run(self) -> Speed:
        """Doubles the rows from one guided ticket on, and stops early when the next count would
        pass the time budget or does not fit. Ends with one decode, so that it too is warm.

        Raises:
            OutOfMemory: not even one ticket fits.
        """
        self.doubts, self._needed_bytes, self._filled = [], 0, False
        states: list[State] = []
        curve = self._curve(states)
        self.doubts += implausible(curve)
        full = self.full_rows or self._full(curve)
        decode_seconds = self._decode(states[0])
        pixels = states[0].pixels
        speed = Speed(
            native_pixels=pixels,
            curve=tuple(curve),
            full_rows=full,
            exponent=self._exponent(curve[-1], pixels),
            decode_seconds=decode_seconds,
            largest_pixels=self._largest(pixels),
        )
        log.info(
            "%d rows share a step; it takes %.1f ms, and %.2f times that for twice the pixels",
            full,
            1000 * speed.step_seconds(full),
            2**speed.exponent,
        )
        return speed

    def _curve(self, states: list[State]) -> list[tuple[int, float]]:
        began, curve = self.clock(), list[tuple[int, float]]()
        counts = self._counts()
        for tickets in counts:
            try:
                self._prepare(states, tickets)
                seconds = self._best_of(states)
            except OutOfMemory:
                if not curve:
                    raise
                log.info("a step of %d rows does not fit", 2 * tickets)
                self._filled = True
                break
            curve.append((2 * tickets, seconds))
            log.info("a step of %d rows takes %.1f ms", 2 * tickets, 1000 * seconds)
            if self.clock() - began + 2 * REPEATS * seconds > BUDGET_SECONDS:
                self._tell_if_slow(tickets, counts[-1])
                break
        return curve

    def _counts(self) -> list[int]:
        """Of guided tickets to be drawn together."""
        most = max(1, self.max_rows // 2)
        if self.full_rows:
            return sorted({1, max(1, min(most, self.full_rows // 2))})
        return [2**n for n in range(most.bit_length())]

    def _full(self, curve: Sequence[tuple[int, float]]) -> int:
        """Where time ran out while more rows still gained much, as on a busy machine, all may share
        a step."""
        if len(curve) > 1 and 2 * curve[-1][0] <= self.max_rows and not self._filled:
            (few, fast), (many, slow) = curve[-2:]
            if slow / many < GAIN * fast / few:
                return self.max_rows
        return worthwhile_rows(curve)

    def _tell_if_slow(self, tickets: int, most: int) -> None:
        if tickets == 1 < most and not self.full_rows:
            log.warning(
                "too slow to measure more than one picture a step, so no two will share one; "
                "DARKROOM_MAX_STEP_PIXELS decides otherwise"
            )

    def _prepare(self, states: list[State], tickets: int, **size: int) -> None:
        stage = native_stage(self.card, **size)
        inputs = native_inputs(stage)
        states += [self.denoiser.prepare(stage, i, inputs) for i in range(len(states), tickets)]

    def _best_of(self, states: Sequence[object]) -> float:
        """The least of a few calls after one that is not counted."""
        self.gauge.begin()
        self._predict(states)
        self._needed_bytes = max(self._needed_bytes, self.gauge.grown_bytes() // len(states))
        times = sorted(self._predict(states) for _ in range(1 if self.full_rows else REPEATS))
        if len(times) > 1 and times[1] > UNSTEADY * times[0]:
            fast, slow = 1000 * times[0], 1000 * times[-1]
            self.doubts.append(f"one step took {fast:.1f} ms, and the same again {slow:.1f} ms")
        return times[0]

    def _predict(self, states: Sequence[object]) -> float:
        with self.call():
            began = self.clock()
            self.denoiser.predict(states)
            self.denoiser.wait()
            return self.clock() - began

    def _decode(self, state: State) -> float:
        self.gauge.begin()
        self._read(state)
        self._needed_bytes = max(self._needed_bytes, self.gauge.grown_bytes())
        began = self.clock()
        self._read(state)
        return self.clock() - began

    def _read(self, state: State) -> None:
        """Noise is decoded here; that an autoencoder makes no picture of it says nothing."""
        with self.call():
            for picture in self.denoiser.decode([state]):
                with contextlib.suppress(NotFinite):
                    picture.array()

    def _exponent(self, measured: tuple[int, float], pixels: int) -> float:
        """By a step of as many rows of a quarter of the pixels."""
        (rows, seconds), side = measured, self.card.native_size // 2
        states: list[State] = []
        try:
            self._prepare(states, rows // 2, width=side, height=side)
            smaller = self._best_of(states)
        except OutOfMemory:
            return 1.0
        if min(seconds, smaller) <= 0 or states[0].pixels == pixels:
            return 1.0
        times = pixels / states[0].pixels
        exponent = round(math.log(seconds / smaller) / math.log(times), 3)
        if exponent > MOST_EXPONENT or seconds < CHEAPER * smaller:
            self.doubts.append(
                f"{times:.0f} times the pixels took {seconds / smaller:.1f} times as long"
            )
        return min(MOST_EXPONENT, max(LEAST_EXPONENT, exponent))

    def _largest(self, pixels: int) -> int:
        """Of the pictures that fit, as memory grows with pixels; 0 where that is not known."""
        free = USABLE * self.gauge.free_bytes()
        return int(pixels * free / self._needed_bytes) if free and self._needed_bytes else 0


def implausible(curve: Sequence[tuple[int, float]]) -> list[str]:
    """What no undisturbed device would show, in words."""
    return [
        f"{many} rows took {slow / max(fast, 1e-9):.1f} times as long as {few}"
        for (few, fast), (many, slow) in pairwise(curve)
        if slow < CHEAPER * fast or slow / many > DEARER * fast / few
    ]


def alike(one: Speed, other: Speed) -> bool:
    """Whether two runs have measured the same, so that it is no accident."""
    pairs = list(zip(one.curve, other.curve, strict=False))
    near = all(math.isclose(a, b, rel_tol=ALIKE) for (_, a), (_, b) in pairs)
    return near and math.isclose(one.exponent, other.exponent, abs_tol=ALIKE)
