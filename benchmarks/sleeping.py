"""A worker that is real but for its model, which sleeps. Knows no torch."""

from __future__ import annotations

import uuid

from server import __version__
from server.config import Settings
from server.forecast import Speed
from server.metrics import WorkerMetrics
from server.storage import open_store
from server.workers.engine import Engine
from server.workers.link import connect
from server.workers.simulated import SimulatedDenoiser
from server.workers.studio import EngineStudio
from server.workers.takeover import Observer
from server.workers.worker import BatchWorker


def a_worker(
    settings: Settings,
    checkpoint: str,
    denoiser: SimulatedDenoiser,
    speed: Speed,
    metrics: WorkerMetrics,
    observer: Observer,
) -> BatchWorker:
    """One of the checkpoint's, as fast as `speed` says."""
    name = f"simulated-{uuid.uuid4().hex[:6]}"
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
    redis = connect(settings.redis)
    return BatchWorker(
        settings, checkpoint, studio, redis=redis, name=name, device="none", observer=observer
    )
