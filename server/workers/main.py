"""One worker process: the only place that knows both the models and the engine."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from prometheus_client import CollectorRegistry

from server import __version__
from server.broker import previews
from server.catalog import Card
from server.config import Settings
from server.exposition import Exposition
from server.metrics import WorkerMetrics
from server.models.device import compute_on
from server.models.memory import MemoryGauge
from server.spec import AnySpec
from server.storage import open_store
from server.tracing import open_tracer
from server.workers.compiling import learn
from server.workers.engine import Engine
from server.workers.link import connect
from server.workers.sideport import SidePort
from server.workers.studio import EngineStudio
from server.workers.unpack import unpack
from server.workers.warmup import WarmUp
from server.workers.watchdog import Watchdog
from server.workers.worker import BatchWorker

log = logging.getLogger("darkroom.worker")


def run_worker(settings: Settings, card: Card) -> None:
    """Load the checkpoint, warm up, then serve its queue until a signal says stop.

    Raises:
        CheckpointError: it cannot be loaded; says which part.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    Exposition(registry, settings.metrics_socket).start()
    tracer = open_tracer(
        settings.otlp_endpoint, settings.trace_ratio, service="darkroom-worker", instance=name
    )
    side_port = SidePort(registry)
    side_port.start(settings)
    # OpenMP keeps a pool for each thread that computes on several cores, and lets none of them
    # spin as soon as they outnumber the cores: with a second pool a CPU step takes 1.8 times as
    # long. So the engine's thread alone has many cores, and all others compute on one.
    one_core = partial(compute_on, 1)
    all_cores = partial(compute_on, settings.threads or torch.get_num_threads())
    one_core()
    denoiser = unpack(settings, card)
    metrics.worker_info.labels(card.name, str(denoiser.device), __version__).set(1)
    metrics.watch(denoiser.upkeep)
    with ThreadPoolExecutor(1, initializer=all_cores) as engine:
        gauge, said = MemoryGauge(denoiser.device), settings.max_step_pixels
        full_rows = max(1, said // card.native_size**2) if said else None
        engine.submit(learn, denoiser, card, settings).result()
        warm_up = WarmUp(denoiser, card, 2 * settings.capacity, gauge, full_rows)
        speed = engine.submit(warm_up.run).result()
    cap = settings.max_step_pixels or speed.full_rows * speed.native_pixels
    log.info("a step takes %d pixels at most", cap)
    redis = connect(settings.redis)
    studio = EngineStudio(
        Engine(denoiser, max_step_pixels=cap),
        open_store(settings.storage, settings.data_dir),
        capacity=settings.capacity,
        worker=name,
        version=__version__,
        metrics=metrics,
        peak_memory_bytes=denoiser.peak_memory_bytes,
        safety=card.safety,
        quantization=card.quantization,
        speed=speed,
        warm_up=warm_up,
        show=partial(previews.show, redis),
        begin_engine=all_cores,
        begin_publisher=one_core,
    )
    worker = BatchWorker(
        settings,
        card.name,
        studio,
        redis=redis,
        name=name,
        device=str(denoiser.device),
        observer=Counting(metrics),
        watchdog=Watchdog(settings.hang_seconds),
        tracer=tracer,
    )
    side_port.ready = lambda: worker.serving
    worker.work()
    tracer.close()


class Counting:
    """Puts what happens to claims into the worker's metrics."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics

    def claimed(self) -> None:
        """A generation was claimed."""
        self._metrics.claims_total.inc()

    def finished(self, state: str, spec: AnySpec | None = None, code: str = "") -> None:
        """A generation ended here, with so many images, if it was drawn at all."""
        self._metrics.generations_finished_total.labels(state).inc()
        if code:
            self._metrics.generations_failed_total.labels(code).inc()
        if spec is not None:
            self._metrics.images_total.labels(spec.task, state).inc(spec.num_images)

    def lost(self) -> None:
        """A claim turned out to belong to somebody else."""
        self._metrics.leases_lost_total.inc()

    def taken_over(self) -> None:
        """A generation of a dead worker was put back."""
        self._metrics.takeovers_total.inc()

    def retried(self) -> None:
        """A generation is tried again after a fault."""
        self._metrics.retries_total.inc()

    def quarantined(self) -> None:
        """A generation was failed because workers keep dying with it."""
        self._metrics.quarantined_total.inc()

    def beat(self, seconds: float) -> None:
        """Redis has answered after so long."""
        self._metrics.redis_seconds.observe(seconds)
