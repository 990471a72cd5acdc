"""`darkroom worker` but for its model: pictures are flat, and a step takes as long as the argument
says, in seconds. Earlier versions of the code run it too, so it asks for what they had as well.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from server.broker import previews
from server.config import Settings
from server.forecast import Speed
from server.log import configure
from server.metrics import WorkerMetrics
from server.storage import open_store
from server.workers.engine import Engine
from server.workers.link import connect
from server.workers.simulated import SimulatedDenoiser
from server.workers.studio import EngineStudio
from server.workers.worker import BatchWorker


class Nobody:
    """Observes nothing."""

    def finished(self, state: str, spec: Any = None, code: str = "") -> None:
        """A generation ended."""

    def beat(self, seconds: float) -> None:
        """Redis has answered."""

    def claimed(self) -> None:
        """All else."""

    lost = taken_over = retried = quarantined = claimed


def measured(step_seconds: float) -> Speed:
    """What a real one says of itself, as far as its version says it."""
    said: dict[str, Any] = {
        "native_pixels": 128 * 128,
        "curve": ((2, step_seconds), (8, step_seconds)),
        "smallest": (0.5, step_seconds),
        "full_rows": 8,
        "decode_curve": ((128 * 128, 0.001),),
        "decode_pixels": 128 * 128,
    }
    return Speed(**{name: value for name, value in said.items() if name in Speed.model_fields})


def a_worker(settings: Settings, registry: CollectorRegistry, step_seconds: float) -> BatchWorker:
    """Real but for its model."""
    redis, name = connect(settings.redis), f"simulated-{os.getpid()}-worker"
    studio = EngineStudio(
        Engine(SimulatedDenoiser(lambda rows: step_seconds), max_step_pixels=10**9),
        open_store(settings.storage, settings.data_dir),
        capacity=settings.capacity,
        worker=name,
        version="1",
        metrics=WorkerMetrics(registry),
        peak_memory_bytes=lambda: 0,
        speed=measured(step_seconds),
        show=partial(previews.show, redis),
    )
    return BatchWorker(
        settings, "demo", studio, redis=redis, name=name, device="cpu", observer=Nobody()
    )


def show(settings: Settings, registry: CollectorRegistry, worker: BatchWorker) -> None:
    """Whether it serves, on the side port of a version that has one."""
    try:
        from server.workers.sideport import SidePort
    except ImportError:
        return
    side_port = SidePort(registry)
    side_port.start(settings)
    side_port.ready = lambda: worker.serving


def main(step_seconds: str) -> None:
    """Serve the demo checkpoint's queue until a signal says stop."""
    settings, registry = Settings(), CollectorRegistry()
    configure(settings.log_format, settings.log_level)
    worker = a_worker(settings, registry, float(step_seconds))
    show(settings, registry, worker)
    worker.work()


if __name__ == "__main__":
    main(*sys.argv[1:])
