"""Real workers that draw without a model, one for each checkpoint in its argument, a JSON list."""

from __future__ import annotations

import json
import logging
import sys
import threading
from functools import partial

from prometheus_client import CollectorRegistry

from server.broker import previews
from server.config import Settings
from server.metrics import WorkerMetrics
from server.storage import open_store
from server.workers.denoiser import Denoiser
from server.workers.engine import Engine
from server.workers.link import connect
from server.workers.simulated import SimulatedDenoiser
from server.workers.studio import EngineStudio
from server.workers.worker import BatchWorker
from tests.queue.crew import Counts


def simulated(
    settings: Settings, checkpoint: str, *, denoiser: Denoiser | None = None, name: str = ""
) -> BatchWorker:
    """A worker of a checkpoint, real but for its model."""
    redis = connect(settings.redis)
    studio = EngineStudio(
        Engine(denoiser or SimulatedDenoiser(), max_step_pixels=10**9),
        open_store(settings.storage, settings.data_dir),
        capacity=settings.capacity,
        worker=f"simulated {checkpoint}",
        version="1",
        metrics=WorkerMetrics(CollectorRegistry()),
        peak_memory_bytes=lambda: 0,
        show=partial(previews.show, redis),
    )
    return BatchWorker(
        settings,
        checkpoint,
        studio,
        redis=redis,
        name=name or f"simulated-{checkpoint}",
        device="cpu",
        observer=Counts(),
    )


def work(settings: Settings, checkpoint: str) -> None:
    """Serve its queue until a signal says stop."""
    simulated(settings, checkpoint).work()


def main(checkpoints: list[str]) -> None:
    """All but one on threads; the process ends with the last."""
    logging.basicConfig(level=logging.WARNING)
    settings = Settings()
    for checkpoint in checkpoints[1:]:
        threading.Thread(target=work, args=(settings, checkpoint), daemon=True).start()
    work(settings, checkpoints[0])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
