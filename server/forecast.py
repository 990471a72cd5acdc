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
from dataclasses import dataclass, replace

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

    # What a newer worker adds is passed over.
    model_config = ConfigDict(use_attribute_docstrings=True, extra="ignore")

    native_pixels: int = Field(gt=0)
    """Of such a picture."""
    curve: tuple[tuple[int, float], ...] = Field(min_length=1)
    """Rows of a UNet call, rising, and the seconds that it took."""
    smallest: tuple[float, float] | None = None
    """The same of a picture of a quarter of the pixels, in native rows; none: a call takes no less
    than the least of the curve."""
    full_rows: int = Field(gt=0)
    """From so many on, another row in a call gains nothing."""
    guided_rows: int = Field(default=2, ge=1, le=2)
    """Of a guided picture; one where the UNet reads the guidance scale."""
    exponent: float = 1.0
    """Of pixels: how a call grows with the size of its pictures."""
    decode_seconds: float = 0.0
    """Of one picture."""
    decode_curve: tuple[tuple[int, float], ...] = ()
    """Pixels of an autoencoder call, rising, and the seconds that it took; where there is none, a
    call takes `decode_seconds` for each picture's worth."""
    decode_pixels: int = Field(default=0, ge=0)
    """So many are decoded in one call, larger pictures alone; 0: all that are done together."""
    drift: float = Field(default=1.0, gt=0)
    """How much longer steps take now than when this was measured."""
    shallow: float = Field(default=1.0, gt=0, le=1)
    """What a step takes that uses features again (`cache_interval`), as a share of a whole one; 1
    as long as none was seen."""
    largest_pixels: int = 0
    """Of a picture that fits the device's memory; 0: nothing is known to be too large."""

    def native_rows(self, rows: float, pixels: int) -> float:
        """`rows` of pictures of so many pixels, in native rows."""
        return float(rows * (pixels / self.native_pixels) ** self.exponent)

    def step_seconds(self, native_rows: float) -> float:
        """Of a UNet call. Between what was measured on a line, beyond it in proportion."""
        return self.drift * self._measured(native_rows)

    def _measured(self, native_rows: float) -> float:
        few, fast = self.curve[0]
        if self.smallest and native_rows < few:
            least, fastest = self.smallest
            share = max(0.0, native_rows - least) / (few - least)
            return fastest + share * (fast - fastest)
        return _on(self.curve, native_rows)

    def decoding_seconds(self, pictures: int, pixels: int) -> float:
        """Of so many that are done together, of so many pixels each, in as many calls as it takes
        this device."""
        together = self.decode_pixels // pixels if self.decode_pixels else pictures
        calls, rest = divmod(pictures, max(1, together))
        full = calls * self._decode_call(max(1, together) * pixels) if calls else 0.0
        return full + (self._decode_call(rest * pixels) if rest else 0.0)

    def alone_seconds(self, steps: int, rows: int, pixels: int) -> float:
        """Of so many steps of a picture and its decoding, by itself."""
        step = self.step_seconds(self.native_rows(rows, pixels))
        return steps * step + self.decoding_seconds(1, pixels)

    def _decode_call(self, pixels: int) -> float:
        if not self.decode_curve:
            return self.decode_seconds * pixels / self.native_pixels
        return _on(self.decode_curve, pixels)

    @property
    def row_seconds(self) -> float:
        """What one native row costs in a full call."""
        return self.step_seconds(self.full_rows) / self.full_rows


def native_rows(stage: Stage, speed: Speed) -> float:
    """Of a step of all its images, on average over its steps."""
    spec = stage.spec
    guided = 1.0 if spec.guided and speed.guided_rows > 1 else 0.0
    if guided and spec.guidance_end < 1:
        calls = max(1, round(_calls(stage)))
        guided = spec.guided_calls(calls) / calls
    return speed.native_rows(spec.num_images * (1 + guided), spec.width * spec.height)


def work(stage: Stage, speed: Speed) -> float:
    """Seconds that a stage takes from a busy device."""
    images, steps = stage.spec.num_images, _whole_steps(stage, speed)
    drawing = steps * native_rows(stage, speed) * speed.row_seconds
    return drawing + speed.decoding_seconds(images, _pixels(stage))


def duration(stage: Stage, speed: Speed, company: float = 0.0) -> float:
    """Seconds from its first step to its pictures, where `company` native rows are drawn beside
    it. Its own pictures share calls as far as that gains anything."""
    spec = stage.spec
    rows, steps = native_rows(stage, speed), _whole_steps(stage, speed)
    row = rows / spec.num_images
    shared = min(max(row, speed.full_rows), rows + company)
    rounds = math.ceil(rows / shared)
    # While it is here, each picture beside it is decoded once too.
    beside = max(0.0, rounds * shared / row - spec.num_images)
    one, own = (speed.decoding_seconds(n, _pixels(stage)) for n in (1, spec.num_images))
    decoding = own + beside * one
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
    each: str = ""
    """Native rows and seconds left of each image, as in `2.0/1.5 8.0/4.2`."""

    def left(self, share: float, images: int) -> Load:
        """This share of it, which so many images have alike."""
        left = share * self.held_seconds
        each = " ".join([f"{self.rows / images:.4f}/{left / images:.4f}"] * images)
        return replace(self, work_seconds=left, each=each)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a stage asks of the workers of its checkpoint."""

    work: float = UNKNOWN_SECONDS
    """Seconds of a busy worker."""
    rows: float = 2.0
    """Native rows of all its images,"""
    row: float = 2.0
    """and of one of them."""
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
        row=rows / stage.spec.num_images,
        alone=duration(stage, first),
        shared=duration(stage, first, company),
        company=company,
    )


def largest_size(width: int, height: int, pixels: int, multiple: int) -> tuple[int, int]:
    """The largest size of about this shape within so many pixels, each side a multiple."""
    scale = math.sqrt(pixels / (width * height))
    sides = (max(multiple, int(side * scale) // multiple * multiple) for side in (width, height))
    return next(sides), next(sides)


def _calls(stage: Stage) -> float:
    """UNet calls of each image."""
    return stage.expected_steps / stage.spec.num_images


def _whole_steps(stage: Stage, speed: Speed) -> float:
    """The same, a shallow one as its share of a whole one."""
    calls, every = _calls(stage), stage.spec.cache_interval
    if every == 1:
        return calls
    whole = math.ceil(calls / every)
    return whole + (calls - whole) * speed.shallow


def _pixels(stage: Stage) -> int:
    return stage.spec.width * stage.spec.height


def _on(curve: Sequence[tuple[int, float]], amount: float) -> float:
    """Seconds of a call. Between what was measured on a line, beyond it in proportion."""
    most, slowest = curve[-1]
    if amount >= most:
        return slowest * amount / most
    place = bisect_left(curve, (amount, 0.0))
    if place == 0:
        return curve[0][1]  # a device is not kept busy by so little
    (few, fast), (many, slow) = curve[place - 1], curve[place]
    return fast + (slow - fast) * (amount - few) / (many - few)
