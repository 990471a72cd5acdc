"""Requests in, pictures out: a worker's studio with all its threads, without queue and network."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from obstore.store import MemoryStore
from prometheus_client import CollectorRegistry

from benchmarks.gpu.subject import CAPACITY, Subject
from server.metrics import WorkerMetrics
from server.spec import AnySpec
from server.storage import ObjectImageStore
from server.workers.engine import Engine
from server.workers.stage import Claim, Drawn, Result
from server.workers.studio import EngineStudio
from tests.builders import a_claim_of

PAUSE_SECONDS = 0.005
"""From one look for room to the next."""
CLOSING_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Picture:
    """One that is in the store, as a PNG. Times are of `time.perf_counter`."""

    asked_at: float
    done_at: float
    drawn: Drawn

    @property
    def seconds(self) -> float:
        """From the request on."""
        return self.done_at - self.asked_at


class Desk:
    """Requests wait here, in line, until the studio has room. For one thread."""

    def __init__(self, studio: EngineStudio) -> None:
        self._studio = studio
        self._numbers = itertools.count()
        self._waiting: deque[Claim] = deque()
        self._asked: dict[str, float] = {}
        self._done: SimpleQueue[tuple[str, Result, float]] = SimpleQueue()
        studio.start(lambda c, result: self._done.put((c.id, result, time.perf_counter())))

    def ask(self, spec: AnySpec, at: float | None = None) -> None:
        """For a picture, now or at a moment ago."""
        claim = a_claim_of(spec, f"gen_{next(self._numbers):032}")
        self._asked[claim.id] = time.perf_counter() if at is None else at
        self._waiting.append(claim)
        self._admit()

    @property
    def room(self) -> bool:
        """Whether the studio would begin with another one at once."""
        return not self._waiting and self._studio.room() > 0

    @property
    def open(self) -> int:
        """Requests that have no picture yet."""
        return len(self._asked)

    @property
    def ages(self) -> list[float]:
        """Seconds that each of those has waited so far."""
        now = time.perf_counter()
        return [now - at for at in self._asked.values()]

    def next(self, seconds: float = PAUSE_SECONDS) -> Picture | None:
        """A picture; None if there is none so soon.

        Raises:
            RuntimeError: one could not be drawn, or none can any more.
        """
        self._admit()
        try:
            id, result, at = self._done.get(timeout=max(seconds, 0.0))
        except Empty:
            if lost := self._studio.lost():
                raise RuntimeError("the engine is lost") from lost
            return None
        self._admit()
        if not isinstance(result, Drawn) or result.warnings:  # such as one that was decoded twice
            raise RuntimeError(f"a request came to {result}")
        return Picture(self._asked.pop(id), at, result)

    def draw(self, spec: AnySpec) -> Picture:
        """One, alone."""
        self.ask(spec)
        while (picture := self.next()) is None:
            pass
        return picture

    def _admit(self) -> None:
        while self._waiting and self._studio.room() > 0:
            self._studio.admit(self._waiting.popleft())


@contextmanager
def desk(subject: Subject) -> Iterator[Desk]:
    """An empty one, with the worker's defaults."""
    studio = EngineStudio(
        Engine(subject.denoiser, max_step_pixels=subject.cap),
        ObjectImageStore(MemoryStore()),
        capacity=CAPACITY,
        worker="benchmark",
        version="0",
        metrics=WorkerMetrics(CollectorRegistry()),
        peak_memory_bytes=subject.denoiser.peak_memory_bytes,
        speed=subject.speed,
    )
    try:
        yield Desk(studio)
    finally:
        studio.close(CLOSING_SECONDS)
