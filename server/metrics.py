"""Every Prometheus metric, declared once, its unit in its name. Labels come from closed sets.

A process makes one of these classes from a registry of its own; nothing is global.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
STEP_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
STEP_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
PHASE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class GatewayMetrics:
    """What one gateway process counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
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
        self.queue_depth = Gauge(
            "darkroom_queue_depth",
            "Generations that wait for a worker, read when this page is.",
            ["checkpoint"],
            registry=registry,
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
        self.step_seconds = Histogram(
            "darkroom_step_seconds",
            "Duration of one UNet call and the sampler steps after it.",
            buckets=STEP_SECONDS,
            registry=registry,
        )
        self.step_rows = Histogram(
            "darkroom_step_rows",
            "Samples in one UNet call; a guided ticket has two.",
            buckets=STEP_ROWS,
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
            "darkroom_images_total", "Images drawn and stored.", registry=registry
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
        self.leases_lost_total = Counter(
            "darkroom_leases_lost_total", "Claims lost while being drawn.", registry=registry
        )
        self.takeovers_total = Counter(
            "darkroom_takeovers_total", "Generations of dead workers put back.", registry=registry
        )
        self.quarantined_total = Counter(
            "darkroom_quarantined_total", "Generations that kept killing.", registry=registry
        )
