"""A worker that is real but for its model, for loads on all that is around it.

    DARKROOM_REDIS=… python -m benchmarks.simulator demo 50 4 10

draws nothing: each step takes 50 ms, and 4 ms more for each row; without the 4 it takes the same
however many rows share it. With the 10 a row counts by its pixels, and decoding takes 10 ms for
each picture of the checkpoint's own size.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from benchmarks.sleeping import a_worker
from server.catalog import load_catalog
from server.config import Settings
from server.log import configure
from server.metrics import WorkerMetrics
from server.workers.main import Counting
from server.workers.simulated import (
    FlatLatents,
    FlatPicture,
    SimulatedDenoiser,
    SimulatedState,
)
from server.workers.warmup import WarmUp


class NoGauge:
    """It needs no memory."""

    def begin(self) -> None:
        """Nothing to do."""

    def grown_bytes(self) -> int:
        """Nothing is known."""
        return 0

    def free_bytes(self) -> int:
        """Nothing is known."""
        return 0


@dataclass(slots=True)
class SizedDenoiser(SimulatedDenoiser):
    """Whose calls take longer for larger pictures."""

    native_pixels: int = 1
    decode_seconds: float = 0.0
    """Of one picture of that size."""
    call_seconds: Callable[[float], float] = lambda rows: 0.0
    """Of a UNet call, by its rows of that size."""

    def predict(self, states: Sequence[SimulatedState]) -> Sequence[int]:
        """Takes its time."""
        pixels = sum(state.rows * state.pixels for state in states)
        time.sleep(self.call_seconds(pixels / self.native_pixels))
        return [state.seed for state in states]

    def decode(self, states: Sequence[SimulatedState]) -> Sequence[FlatPicture | FlatLatents]:
        """Takes its time."""
        pixels = sum(state.pixels for state in states)
        time.sleep(self.decode_seconds * pixels / self.native_pixels)
        return SimulatedDenoiser.decode(self, states)


def main(checkpoint: str, milliseconds: str, each_row: str = "0", decode: str = "") -> None:
    """Serve the checkpoint's queue until a signal says stop."""
    settings = Settings()
    configure(settings.log_format, settings.log_level)
    step, row = float(milliseconds) / 1000, float(each_row) / 1000
    card = load_catalog(settings.catalog)[checkpoint]
    denoiser = SimulatedDenoiser(step_seconds=lambda rows: step + row * rows)
    if decode:
        seconds, pixels = float(decode) / 1000, card.native_size**2
        denoiser = SizedDenoiser(
            native_pixels=pixels, decode_seconds=seconds, call_seconds=lambda r: step + row * r
        )
    speed = WarmUp(denoiser, card, 2 * settings.capacity, NoGauge()).run()
    metrics = WorkerMetrics(CollectorRegistry())
    a_worker(settings, checkpoint, denoiser, speed, metrics, Counting(metrics)).work()


if __name__ == "__main__":
    main(*sys.argv[1:])
