"""A process of simulated workers: real queue, engine, PNGs and store; a step is a sleep.

    DARKROOM_REDIS=… python -m benchmarks.control.crew 4

How long a step sleeps is a calculation, no measurement, of what SD v1 at 512 x 512 takes on an
H200 once compiled: 5.0 ms for one guided picture, 28.8 ms for eight. Encoding prompts and decoding
take no time. Each line on stdin is answered with what encoding and storing pictures have used of
the CPU.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from benchmarks.control.proc import threads_seconds
from benchmarks.pictures import grainy
from benchmarks.sleeping import a_worker
from server.config import Settings
from server.forecast import Speed
from server.log import configure
from server.metrics import WorkerMetrics
from server.spec import AnySpec
from server.workers import publish
from server.workers.simulated import FlatPicture, SimulatedDenoiser, SimulatedState
from server.workers.worker import BatchWorker

CHECKPOINT = "sd-v1-5"
SIDE = 512
CURVE = ((2, 0.0050), (16, 0.0288))
"""Rows, two for a guided picture, and seconds of a step."""
SPEED = Speed(native_pixels=SIDE * SIDE, curve=CURVE, full_rows=16)
CAPACITY = 8
"""Pictures that share a step."""


def pictures_per_second(steps: int) -> float:
    """That one worker draws at most."""
    return CAPACITY / (steps * SPEED.step_seconds(2 * CAPACITY))


@dataclass(frozen=True, slots=True)
class Grainy(FlatPicture):
    """Slopes with grain, as hard to encode as a photograph, and like no other."""

    pixels: NDArray[np.uint8]

    def array(self) -> NDArray[np.uint8]:
        """Shape (height, width, 3)."""
        drawn = self.pixels[: self.height, : self.width].copy()
        drawn[0, 0] = self.seed % 256
        return drawn


@dataclass(slots=True)
class GrainyDenoiser(SimulatedDenoiser):
    """A simulated one whose pictures are worth encoding."""

    pixels: NDArray[np.uint8] = field(default_factory=lambda: grainy(SIDE))

    def decode(self, states: Sequence[SimulatedState]) -> Sequence[Grainy]:
        """The same picture, but for a pixel."""
        return [Grainy(s.spec.width, s.spec.height, s.seed, self.pixels) for s in states]


@dataclass(slots=True)
class Stopwatch:
    """CPU seconds of all calls, on whatever thread."""

    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, measured."""

        def measured(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                used = time.thread_time() - began
                with self._lock:
                    self.seconds += used

        return measured


class Nobody:
    """Observes nothing."""

    def claimed(self) -> None:
        """Nothing."""

    def finished(self, state: str, spec: AnySpec | None = None, code: str = "") -> None:
        """Nothing."""

    def beat(self, seconds: float) -> None:
        """Nothing."""

    lost = taken_over = retried = quarantined = claimed


def main(number: str) -> None:
    """So many workers, until stdin is closed."""
    settings = Settings()
    configure(settings.log_format, settings.log_level)
    encoding = Stopwatch()
    publish.encode_png = encoding.around(publish.encode_png)
    workers = [asleep(settings) for _ in range(int(number))]
    threads = [threading.Thread(target=worker.work) for worker in workers]
    for thread in threads:
        thread.start()
    for _ in sys.stdin:
        used = {"png": encoding.seconds, "store": threads_seconds("tokio")}
        print(json.dumps(used), flush=True)
    for worker in workers:
        worker.request_stop()
        worker.request_stop()
    for thread in threads:
        thread.join()


def asleep(settings: Settings) -> BatchWorker:
    """Real but for its model."""
    denoiser = GrainyDenoiser(step_seconds=SPEED.step_seconds)
    metrics = WorkerMetrics(CollectorRegistry())
    return a_worker(settings, CHECKPOINT, denoiser, SPEED, metrics, Nobody())


if __name__ == "__main__":
    main(*sys.argv[1:])
