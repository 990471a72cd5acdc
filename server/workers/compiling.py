"""Before a worker is ready: the calls for which its UNet is compiled, told while they take.

What is compiled is kept for the next start, and so is how long it took. Knows no torch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from server.catalog import Card
from server.config import Settings
from server.errors import OutOfMemory
from server.workers.denoiser import Denoiser, State
from server.workers.native import native_inputs, native_stage

if TYPE_CHECKING:
    from server.models.diffusion import LatentDiffusion

log = logging.getLogger("darkroom.warmup")

COMPILED = "compiled"
"""The folder in the data directory."""
OFTEN_SECONDS = 5.0
"""At most as often it is said how far it is."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """A UNet call of guided tickets, of two rows each, and of unguided ones of one."""

    guided: int
    unguided: int
    share: float
    """Of the native size, each side."""

    @property
    def rows(self) -> int:
        """Of the call."""
        return 2 * self.guided + self.unguided


MEETINGS = (Meeting(2, 1, 1), Meeting(0, 1, 1), Meeting(8, 1, 0.5), Meeting(0, 1, 1.5))
"""Any number of rows, one row alone; and where a CPU's convolutions are chosen otherwise, by rows
and by size. What is compiled for one serves the next where it can."""


class Blocks(Protocol):
    """What can be compiled of a UNet."""

    def __len__(self) -> int:
        """How many there are."""

    def learn(self, told: Callable[[], object]) -> AbstractContextManager[None]:
        """Calls meanwhile compile for what they meet; `told` after each block."""


def learn(denoiser: LatentDiffusion, card: Card, settings: Settings) -> None:
    """Compile what is to be compiled, on the thread that steps, before anything is drawn."""
    if denoiser.compiled is None:
        return
    dtype = str(denoiser.dtype).removeprefix("torch.")
    name = f"{card.name}-{denoiser.device}-{dtype}.seconds".replace(":", "")
    record = settings.data_dir / COMPILED / name
    Compiling(denoiser, denoiser.compiled, card, 2 * settings.capacity, record).run()


@dataclass(slots=True)
class Compiling:
    """One worker's.

    Args:
        max_rows: more are never drawn together.
        record: file of the seconds that it took the last time.
    """

    denoiser: Denoiser
    blocks: Blocks
    card: Card
    max_rows: int
    record: Path
    clock: Callable[[], float] = time.perf_counter
    _began: float = 0.0
    _told: float = 0.0
    _met: int = 0
    _to_meet: int = 0
    _last: float | None = field(default=None)

    def run(self) -> None:
        """Compile for all that is met later, as far as that can be known; say how long it takes."""
        meetings = [each for each in MEETINGS if each.rows <= self.max_rows]
        self._met, self._to_meet = 0, len(meetings) * len(self.blocks)
        self._began = self._told = self.clock()
        self._last = _read(self.record)
        known = self._last is not None
        took = f"it took {self._last:.0f} s the last time" if known else "this may take minutes"
        log.info("compiling the UNet's blocks; %s", took)
        with self.blocks.learn(self._tell):
            for meeting in meetings:
                self._meet(meeting)
        self.denoiser.make_room()  # as what was met is seldom what is drawn
        seconds = self.clock() - self._began
        log.info("compiled after %.1f s", seconds)
        _write(self.record, seconds)

    def _meet(self, meeting: Meeting) -> None:
        try:
            self.denoiser.predict(self._states(meeting))
            self.denoiser.wait()
        except OutOfMemory as error:
            log.warning("nothing compiled for %d rows: %s", meeting.rows, error)

    def _states(self, meeting: Meeting) -> list[State]:
        side = int(self.card.native_size * meeting.share)
        stage = native_stage(self.card, width=side, height=side)
        alone = native_stage(self.card, width=side, height=side, guidance_scale=1.0)
        stages = [stage] * meeting.guided + [alone] * meeting.unguided
        return [self.denoiser.prepare(each, 0, native_inputs(each)) for each in stages]

    def _tell(self) -> None:
        self._met += 1
        now = self.clock()
        if now - self._told < OFTEN_SECONDS:
            return
        self._told, seconds = now, now - self._began
        left = "" if self._last is None else f", {max(0.0, self._last - seconds):.0f} s to go"
        log.info("compiling, %d of %d after %.0f s%s", self._met, self._to_meet, seconds, left)


def _read(record: Path) -> float | None:
    """Seconds, where they are known."""
    try:
        return float(record.read_text())
    except (OSError, ValueError):
        return None


def _write(record: Path, seconds: float) -> None:
    try:
        record.write_text(f"{seconds:.1f}\n")
    except OSError as error:
        log.warning("how long it took cannot be kept: %s", error.strerror)
