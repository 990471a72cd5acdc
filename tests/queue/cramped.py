"""A worker that draws in earnest, but for the model, in a process that may write no file larger
than it is told: a disk that is full in the middle of a picture. SIGUSR1 makes room. Says what it
does on stderr, which must be a pipe."""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from server.config import Settings
from server.metrics import WorkerMetrics
from server.storage import open_store
from server.workers import archive
from server.workers.engine import Engine
from server.workers.link import connect
from server.workers.simulated import SimulatedDenoiser
from server.workers.studio import EngineStudio
from server.workers.worker import BatchWorker
from tests.queue.crew import Counts


def main(settings: dict[str, Any], folder: str, file_bytes: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    archive.LONGEST_PAUSE_SECONDS = 0.1
    parts = Settings(**settings)
    registry = CollectorRegistry()
    studio = EngineStudio(
        Engine(SimulatedDenoiser(), max_step_pixels=10**9),
        open_store("", Path(folder)),
        capacity=4,
        worker="cramped",
        version="1",
        metrics=WorkerMetrics(registry),
        peak_memory_bytes=lambda: 0,
    )
    worker = BatchWorker(
        parts,
        "demo",
        studio,
        redis=connect(parts.redis),
        name="cramped",
        device="cpu",
        observer=Counts(),
    )
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def make_room(*_: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        refused = registry.get_sample_value("darkroom_store_errors_total")
        logging.info("room again, after %d refusals", refused)

    signal.signal(signal.SIGUSR1, make_room)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, most))
    worker.work()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
