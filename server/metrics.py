"""Every Prometheus metric, declared once, its unit in its name. Labels come from closed sets.

A process makes one of these classes from a registry of its own; nothing is global.
"""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from server.kept import Kept, Upkeep

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
STEP_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
STEP_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
PHASE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
GENERATION_SECONDS = (0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 300, 1800)
REDIS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SIDES = (128, 256, 512, 768, 1024, 1536, 2048)


class GatewayMetrics:
    """What one gateway process counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self.registry = registry
        self.shared = CollectorRegistry()
        """What is the same whichever gateway tells it, and so must be told by one only."""
        self.http_requests_total = Counter(
            "darkroom_http_requests_total",
            "Answered HTTP requests.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.http_request_seconds = Histogram(
            "darkroom_http_request_seconds",
            "From the head of a request to the last byte of its answer.",
            ["route", "method"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.generations_accepted_total = Counter(
            "darkroom_generations_accepted_total",
            "Generations that were queued; replays are not counted again.",
            ["checkpoint"],
            registry=registry,
        )
        self.generations_refused_total = Counter(
            "darkroom_generations_refused_total",
            "Generations that were asked for and not queued, by the code of the error.",
            ["code"],
            registry=registry,
        )
        self.webhook_calls_total = Counter(
            "darkroom_webhook_calls_total",
            "Webhooks called: delivered, failed for good, or pending because tried again.",
            ["state"],
            registry=registry,
        )
        self.queued_expired_total = Counter(
            "darkroom_queued_expired_total",
            "Generations ended in the queue because their deadline passed, though nobody looked.",
            registry=registry,
        )
        self.records_expired_total = Counter(
            "darkroom_records_expired_total",
            "Records removed, with their images, because they were kept for long enough.",
            registry=registry,
        )
        self.swept_files_total = Counter(
            "darkroom_swept_files_total",
            "Files removed from the image store because no record named them.",
            registry=registry,
        )
        self.store_errors_total = Counter(
            "darkroom_store_errors_total",
            "Times the image store refused a read, a write or a removal.",
            registry=registry,
        )
        self.store_free_bytes = Gauge(
            "darkroom_store_free_bytes",
            "What is left in the folder of the image store; NaN where there is no telling.",
            registry=self.shared,
        )
        self.store_free_bytes.set(math.nan)
        self.queue_depth = Gauge(
            "darkroom_queue_depth",
            "Generations that wait for a worker, read when this page is.",
            ["checkpoint"],
            registry=self.shared,
        )
        self.queue_oldest_seconds = Gauge(
            "darkroom_queue_oldest_seconds",
            "Since the one that is first in the queue was accepted; 0 where none waits.",
            ["checkpoint"],
            registry=self.shared,
        )
        self.queued_work_seconds = Gauge(
            "darkroom_queued_work_seconds",
            "Of one worker, predicted, that all take that wait.",
            ["checkpoint"],
            registry=self.shared,
        )
        self.queue_bound_seconds = Gauge(
            "darkroom_queue_bound_seconds",
            "The longest predicted wait that is accepted.",
            registry=self.shared,
        )
        self.workers = Gauge(
            "darkroom_workers",
            "Workers that are alive, by whether they take more.",
            ["checkpoint", "state"],
            registry=self.shared,
        )
        self.redis_seconds = Histogram(
            "darkroom_redis_seconds",
            "Round trip to Redis and back, measured when this page is read.",
            buckets=REDIS_SECONDS,
            registry=registry,
        )
        self.redis_memory_bytes = Gauge(
            "darkroom_redis_memory_bytes",
            "What Redis has used, and the most that it may where it has a bound.",
            ["kind"],
            registry=self.shared,
        )
        self.waiters = Gauge(
            "darkroom_waiters",
            "Requests and streams that wait for a generation to change.",
            registry=registry,
        )
        self.event_streams = Gauge(
            "darkroom_event_streams", "Open event streams.", registry=registry
        )


class WorkerMetrics:
    """What one worker process counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self._registry = registry
        self.worker_info = Gauge(
            "darkroom_worker_info",
            "1; the labels say what all other metrics of this worker are of.",
            ["checkpoint", "device", "version"],
            registry=registry,
        )
        self.step_seconds = Histogram(
            "darkroom_step_seconds",
            "Duration of one UNet call and the sampler steps after it, by the size of its pictures "
            "at most.",
            ["size"],
            buckets=STEP_SECONDS,
            registry=registry,
        )
        self.step_rows = Histogram(
            "darkroom_step_rows",
            "Samples in one UNet call; a guided ticket has two.",
            ["size"],
            buckets=STEP_ROWS,
            registry=registry,
        )
        self.step_occupancy_ratio = Histogram(
            "darkroom_step_occupancy_ratio",
            "Rows times pixels of one UNet call over the most that share one.",
            buckets=RATIOS,
            registry=registry,
        )
        self.step_drift_ratio = Gauge(
            "darkroom_step_drift_ratio",
            "What steps take lately, by what was measured; 1 is as measured.",
            registry=registry,
        )
        self.step_drift_ratio.set(1.0)
        self.generation_seconds = Histogram(
            "darkroom_generation_seconds",
            "From acceptance to the last picture, of those whose pictures were drawn.",
            ["task"],
            buckets=GENERATION_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "darkroom_stage_seconds",
            "Where the time of a generation goes.",
            ["phase"],
            buckets=PHASE_SECONDS,
            registry=registry,
        )
        self.tickets_in_flight = Gauge(
            "darkroom_tickets_in_flight", "Images being denoised.", registry=registry
        )
        self.peak_memory_bytes = Gauge(
            "darkroom_peak_memory_bytes", "The most memory the worker has held.", registry=registry
        )
        self.images_total = Counter(
            "darkroom_images_total",
            "Images of generations that ended here after they were claimed, by how they ended.",
            ["task", "outcome"],
            registry=registry,
        )
        self.wasted_steps_total = Counter(
            "darkroom_wasted_steps_total",
            "Steps of tickets that came to nothing: canceled, expired, failed (also where it is "
            "tried again), or abandoned to another worker.",
            ["reason"],
            registry=registry,
        )
        self.claims_total = Counter(
            "darkroom_claims_total", "Generations taken from the queue.", registry=registry
        )
        self.generations_finished_total = Counter(
            "darkroom_generations_finished_total",
            "Generations this worker brought to a terminal state.",
            ["state"],
            registry=registry,
        )
        self.generations_failed_total = Counter(
            "darkroom_generations_failed_total",
            "Generations that ended here with an error, by its code; not those tried again.",
            ["code"],
            registry=registry,
        )
        self.out_of_memory_total = Counter(
            "darkroom_out_of_memory_total",
            "Device calls that did not fit: retried with caches freed, split, or failed alone.",
            ["remedy"],
            registry=registry,
        )
        self.decoded_again_total = Counter(
            "darkroom_decoded_again_total",
            "NaN or blank pictures, by what the autoencoder in float32 says they are: a picture, "
            "blank or not_finite.",
            ["found"],
            registry=registry,
        )
        self.leases_lost_total = Counter(
            "darkroom_leases_lost_total", "Claims lost while being drawn.", registry=registry
        )
        self.store_errors_total = Counter(
            "darkroom_store_errors_total",
            "Times the image store refused a read, a write or a removal.",
            registry=registry,
        )
        self.takeovers_total = Counter(
            "darkroom_takeovers_total", "Generations of dead workers put back.", registry=registry
        )
        self.retries_total = Counter(
            "darkroom_retries_total", "Generations tried again after a fault.", registry=registry
        )
        self.quarantined_total = Counter(
            "darkroom_quarantined_total", "Generations that kept killing.", registry=registry
        )
        self.redis_seconds = Histogram(
            "darkroom_redis_seconds",
            "All that a beat asks of Redis, to the last answer.",
            buckets=REDIS_SECONDS,
            registry=registry,
        )

    def stepped(self, rows: int, pixels: int, seconds: float, *, most_pixels: int) -> None:
        """One UNet call of so many rows, of pictures of so many pixels."""
        size = size_of(pixels)
        self.step_seconds.labels(size).observe(seconds)
        self.step_rows.labels(size).observe(rows)
        self.step_occupancy_ratio.observe(rows * pixels / most_pixels)

    def watch(self, upkeep: Upkeep) -> None:
        """Tell from now on, whenever the page is read, what the models keep."""
        self._registry.register(Kept(upkeep))


def size_of(pixels: int) -> str:
    """The label of a picture's size: the smallest square here that has so many pixels."""
    side = next((side for side in SIDES if pixels <= side * side), 0)
    return f"{side}x{side}" if side else "larger"
