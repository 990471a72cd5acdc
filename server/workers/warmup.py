"""What a worker measures before it says it is ready: step time against rows and pixels, decode time
against pixels, and the memory that both need.

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
DECODE_BUDGET_SECONDS = 3.0
REPEATS = 3
SHORT_SECONDS = 0.5
"""A decode that takes longer is timed once."""
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
        """Doubles the rows from one guided ticket on, then the pictures of a decode, and stops
        early when the next count would pass the time budget or does not fit.

        Raises:
            OutOfMemory: not even one ticket fits.
        """
        self.doubts, self._needed_bytes, self._filled = [], 0, False
        states: list[State] = []
        curve = self._curve(states)
        self.doubts += implausible(curve)
        full = self.full_rows or self._full(curve)
        pixels, smaller = states[0].pixels, list[State]()
        speed = Speed(
            native_pixels=pixels,
            curve=tuple(curve),
            full_rows=full,
            guided_rows=states[0].rows,
            exponent=self._exponent(curve[-1], states[0], smaller),
        )
        log.info(
            "%d rows share a step; it takes %.1f ms, and %.2f times that for twice the pixels",
            full,
            1000 * speed.step_seconds(full),
            2**speed.exponent,
        )
        decodes = self._decodes(states, smaller)
        one = dict(decodes)[pixels]
        known = {
            "smallest": self._smallest(smaller, speed),
            "decode_seconds": one,
            "decode_curve": tuple(decodes),
            "decode_pixels": fair_pixels(decodes, max(one, speed.step_seconds(full))),
            "largest_pixels": self._largest(pixels),
        }
        return speed.model_copy(update=known)

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
            rows = sum(state.rows for state in states)
            curve.append((rows, seconds))
            log.info("a step of %d rows takes %.1f ms", rows, 1000 * seconds)
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

    def _decodes(self, states: list[State], smaller: list[State]) -> list[tuple[int, float]]:
        """Pixels of a decode and its seconds: of one picture, of a quarter of that, and of twice as
        many as before as long as that gains anything."""
        began, last, pictures = self.clock(), self._decode(states[:1]), 2
        measured = [last]
        if smaller and smaller[0].pixels < states[0].pixels:
            measured.append(self._decode(smaller[:1]))
        while pictures <= len(states) and not self.full_rows:
            if self.clock() - began + 2 * (1 + REPEATS) * last[1] > DECODE_BUDGET_SECONDS:
                break
            try:
                more = self._decode(states[:pictures])
            except OutOfMemory:
                log.info("a decode of %d pictures does not fit", pictures)
                break
            measured.append(more)
            if more[1] / more[0] > GAIN * last[1] / last[0]:
                break
            last, pictures = more, 2 * pictures
        return sorted(measured)

    def _decode(self, states: Sequence[State]) -> tuple[int, float]:
        """The least of a few calls after one that is not counted."""
        self.gauge.begin()
        quick = self._read(states) < SHORT_SECONDS and not self.full_rows
        self._needed_bytes = max(self._needed_bytes, self.gauge.grown_bytes() // len(states))
        seconds = min(self._read(states) for _ in range(REPEATS if quick else 1))
        pixels = len(states) * states[0].pixels
        log.info("a decode of %d pixels takes %.1f ms", pixels, 1000 * seconds)
        return pixels, seconds

    def _read(self, states: Sequence[State]) -> float:
        """Noise is decoded here; that an autoencoder makes no picture of it says nothing."""
        with self.call():
            began = self.clock()
            for picture in self.denoiser.decode(states):
                with contextlib.suppress(NotFinite):
                    picture.array()
            return self.clock() - began

    def _exponent(self, measured: tuple[int, float], large: State, states: list[State]) -> float:
        """By a step of as many rows of a quarter of the pixels, which `states` gets."""
        (rows, seconds), side, pixels = measured, self.card.native_size // 2, large.pixels
        try:
            self._prepare(states, rows // large.rows, width=side, height=side)
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

    def _smallest(self, states: Sequence[State], speed: Speed) -> tuple[float, float] | None:
        """None where it is no less than a larger one."""
        if not states or states[0].pixels >= speed.native_pixels or self.full_rows:
            return None
        seconds = self._best_of(states[:1])
        rows = speed.native_rows(states[0].rows, states[0].pixels)
        return (rows, seconds) if seconds < speed.curve[0][1] else None

    def _largest(self, pixels: int) -> int:
        """Of the pictures that fit, as memory grows with pixels; 0 where that is not known."""
        free = USABLE * self.gauge.free_bytes()
        return int(pixels * free / self._needed_bytes) if free and self._needed_bytes else 0


def fair_pixels(curve: Sequence[tuple[int, float]], most_seconds: float) -> int:
    """That are decoded in one call: from so many on, more gain nothing, or would hold up who steps
    for longer than that."""
    return worthwhile_rows([each for each in curve if each[1] <= most_seconds] or curve[:1])


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
