"""What a generation will cost, before it is drawn: a pure function of its spec and of what workers
have measured of themselves.

Two times are told apart. `work` is what it takes from a busy device, whose calls are full: it adds
up, so queues are measured in it. `duration` is how long its own steps take beside others.

Rows are counted in native rows here: those of a picture of the checkpoint's own size; one of `k`
times the pixels counts as `k ** exponent` of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ConfigDict, Field

from server.spec import Frozen
from server.stages import Stage

OPTIMISM = 0.75
"""Nothing is refused or ended for want of time that would be done within this share of what is
predicted: a prediction may be wrong by a quarter."""

UNKNOWN_SECONDS = 1.0
"""Of work, for a generation of a checkpoint that nobody has measured yet."""


class Speed(Frozen):
    """What a worker has measured of itself with guided pictures of the checkpoint's own size."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    native_pixels: int = Field(gt=0)
    """Of such a picture."""
    curve: tuple[tuple[int, float], ...] = Field(min_length=1)
    """Rows of a UNet call, rising, and the seconds that it took."""
    full_rows: int = Field(gt=0)
    """From so many on, another row in a call gains nothing."""
    exponent: float = 1.0
    """Of pixels: how a call grows with the size of its pictures."""
    decode_seconds: float = 0.0
    """Of one picture."""
    drift: float = Field(default=1.0, gt=0)
    """How much longer steps take now than when this was measured."""
    largest_pixels: int = 0
    """Of a picture that fits the device's memory; 0: nothing is known to be too large."""

    def native_rows(self, rows: float, pixels: int) -> float:
        """`rows` of pictures of so many pixels, in native rows."""
        return float(rows * (pixels / self.native_pixels) ** self.exponent)

    def step_seconds(self, native_rows: float) -> float:
        """Of a UNet call. Between what was measured on a line, beyond it in proportion."""
        return self.drift * self._measured(native_rows)

    def _measured(self, native_rows: float) -> float:
        most, slowest = self.curve[-1]
        if native_rows >= most:
            return slowest * native_rows / most
        place = bisect_left(self.curve, (native_rows, 0.0))
        if place == 0:
            return self.curve[0][1]  # a device is not kept busy by so little
        (few, fast), (many, slow) = self.curve[place - 1], self.curve[place]
        return fast + (slow - fast) * (native_rows - few) / (many - few)

    @property
    def row_seconds(self) -> float:
        """What one native row costs in a full call."""
        return self.step_seconds(self.full_rows) / self.full_rows


def native_rows(stage: Stage, speed: Speed) -> float:
    """Of a step of all its images."""
    spec = stage.spec
    rows = spec.num_images * (2 if spec.guided else 1)
    return speed.native_rows(rows, spec.width * spec.height)


def work(stage: Stage, speed: Speed) -> float:
    """Seconds that a stage takes from a busy device."""
    images = stage.spec.num_images
    steps = stage.expected_steps / images
    drawing = steps * native_rows(stage, speed) * speed.row_seconds
    return drawing + images * _decode_seconds(stage, speed)


def duration(stage: Stage, speed: Speed, company: float = 0.0) -> float:
    """Seconds from its first step to its pictures, where `company` native rows are drawn beside
    it. Its own pictures share calls as far as that gains anything."""
    spec = stage.spec
    rows, steps = native_rows(stage, speed), stage.expected_steps / spec.num_images
    row = rows / spec.num_images
    shared = min(max(row, speed.full_rows), rows + company)
    rounds = math.ceil(rows / shared)
    # While it is here, each picture beside it is decoded once too.
    decoding = rounds * shared / row * _decode_seconds(stage, speed)
    return rounds * steps * speed.step_seconds(shared) + decoding


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has in hand."""

    rows: float = 0.0
    """Native rows of what it holds."""
    held_seconds: float = 0.0
    """Of a busy worker, for all of it,"""
    work_seconds: float = 0.0
    """and for what is left of it."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a stage asks of the workers of its checkpoint."""

    work: float = UNKNOWN_SECONDS
    """Seconds of a busy worker."""
    rows: float = 2.0
    """Native rows of all its images."""
    alone: float = 0.0
    """Seconds that it takes by itself,"""
    shared: float = 0.0
    """and in a full worker,"""
    company: float = 0.0
    """which draws so many native rows beside it."""


def demand(stage: Stage, speeds: Sequence[Speed], capacity: int) -> Demand:
    """Of workers that hold so many images at once. Where they differ, its work is what it takes
    from them on average, so that so many of them get as much done as they do."""
    if not speeds:
        return Demand()
    first = speeds[0]
    rows = native_rows(stage, first)
    # Whoever is drawn beside others takes turns with them where the calls are full.
    company = max(0.0, min(first.full_rows, capacity * rows / stage.spec.num_images) - rows)
    return Demand(
        work=len(speeds) / sum(1 / max(work(stage, speed), 1e-9) for speed in speeds),
        rows=rows,
        alone=duration(stage, first),
        shared=duration(stage, first, company),
        company=company,
    )


def largest_size(width: int, height: int, pixels: int, multiple: int) -> tuple[int, int]:
    """The largest size of about this shape within so many pixels, each side a multiple."""
    scale = math.sqrt(pixels / (width * height))
    sides = (max(multiple, int(side * scale) // multiple * multiple) for side in (width, height))
    return next(sides), next(sides)


def _decode_seconds(stage: Stage, speed: Speed) -> float:
    return speed.decode_seconds * stage.spec.width * stage.spec.height / speed.native_pixels
