"""A worker that is real but for its model, for loads on all that is around it.

    DARKROOM_REDIS=… python -m benchmarks.simulator demo 50 4

draws nothing: each step takes 50 ms, and 4 ms more for each row; without the 4 it takes the same
however many rows share it.
"""

from __future__ import annotations

import sys
import uuid

from prometheus_client import CollectorRegistry

from server import __version__
from server.catalog import load_catalog
from server.config import Settings
from server.log import configure
from server.metrics import WorkerMetrics
from server.storage import open_store
from server.workers.engine import Engine
from server.workers.link import connect
from server.workers.main import Counting
from server.workers.simulated import SimulatedDenoiser
from server.workers.studio import EngineStudio
from server.workers.warmup import WarmUp
from server.workers.worker import BatchWorker


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


def main(checkpoint: str, milliseconds: str, each_row: str = "0") -> None:
    """Serve the checkpoint's queue until a signal says stop."""
    settings = Settings()
    configure(settings.log_format, settings.log_level)
    step, row = float(milliseconds) / 1000, float(each_row) / 1000
    denoiser = SimulatedDenoiser(step_seconds=lambda rows: step + row * rows)
    card = load_catalog(settings.catalog)[checkpoint]
    speed = WarmUp(denoiser, card, 2 * settings.capacity, NoGauge()).run()
    name, metrics = f"simulated-{uuid.uuid4().hex[:6]}", WorkerMetrics(CollectorRegistry())
    studio = EngineStudio(
        Engine(denoiser, max_step_pixels=speed.full_rows * speed.native_pixels),
        open_store(settings.storage, settings.data_dir),
        capacity=settings.capacity,
        worker=name,
        version=__version__,
        metrics=metrics,
        peak_memory_bytes=lambda: 0,
        speed=speed,
    )
    BatchWorker(
        settings,
        checkpoint,
        studio,
        redis=connect(settings.redis),
        name=name,
        device="none",
        observer=Counting(metrics),
    ).work()


if __name__ == "__main__":
    main(*sys.argv[1:])
