"""From a flight whose pictures are all drawn to its result, on a publisher's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from server.catalog import Safety
from server.metrics import WorkerMetrics
from server.spec import Metrics, Quantization, Warn
from server.stages import Handover
from server.workers.archive import Archive
from server.workers.calls import Calls
from server.workers.denoiser import Denoiser
from server.workers.developing import Developer
from server.workers.flight import Flight, ended_by, heed
from server.workers.publish import Pixels
from server.workers.screen import screened, warnings_of
from server.workers.stage import Claim, Drawn, Handed, Result

log = logging.getLogger("darkroom.studio")

PHASES = ("queue", "encode", "denoise", "decode", "publish")


class Finisher:
    """Copies from the device, checks, keeps and measures."""

    def __init__(
        self,
        archive: Archive,
        calls: Calls,
        metrics: WorkerMetrics,
        *,
        worker: str,
        peak_memory_bytes: Callable[[], int],
        safety: Safety,
        quantization: Quantization,
        denoiser: Denoiser,
    ) -> None:
        self._archive = archive
        self._calls = calls
        self._metrics = metrics
        self._worker = worker
        self._peak_memory_bytes = peak_memory_bytes
        self._safety = safety
        self._quantization = quantization
        self._unsafe = denoiser.unsafe
        self._developer = Developer(denoiser.decode_again, calls, metrics)

    def finish(self, flight: Flight) -> Result:
        """Its images in the store, or what the next stage takes, or why there is neither."""
        claim = flight.claim
        try:
            keep = self._hand_on if claim.following else self._show
            return keep(flight)
        except Exception as error:  # one generation's pictures, not the publisher
            log.exception("could not be published", extra={"generation": claim.id})
            return ended_by(error, claim.spec)

    def _hand_on(self, flight: Flight) -> Handed:
        made, warnings = self._developer.develop(flight)
        if _leaves(flight.claim):
            _, made, flagged = self._checked(flight, made)
            warnings += flagged
        keys = self._archive.hand_on(flight.claim, made)
        return Handed(keys, self._measured(flight), (*flight.warnings, *warnings))

    def _show(self, flight: Flight) -> Drawn:
        made, warnings = self._developer.develop(flight)
        flags, shown, flagged = self._checked(flight, made)
        images = self._archive.publish(flight.claim, shown, flags)
        claim = flight.claim
        seconds = max(0.0, time.time() - claim.created_at)  # the clock of whoever accepted it
        self._metrics.generation_seconds.labels(claim.whole.task).observe(seconds)
        warnings = (*flight.warnings, *warnings, *flagged)
        return Drawn(images, self._measured(flight), warnings)

    def _checked(
        self, flight: Flight, made: list[Pixels]
    ) -> tuple[list[bool | None], list[Pixels], tuple[Warn, ...]]:
        """Which pictures are flagged, all as they may be shown, and what is said of that."""
        flags = [self._flag(pixels) for pixels in made]
        warnings = warnings_of(flags, self._safety)
        heed(flight.claim.spec.strict, warnings)
        shown = [screened(p, nsfw, self._safety) for p, nsfw in zip(made, flags, strict=True)]
        return flags, shown, warnings

    def _flag(self, pixels: Pixels) -> bool | None:
        if self._safety is Safety.OFF:
            return None
        with self._calls.watched():
            return self._unsafe(pixels)

    def _measured(self, flight: Flight) -> Metrics:
        metrics = flight.metrics(
            publish_seconds=time.monotonic() - flight.drawn_at,
            at=time.time(),
            peak_memory_bytes=self._peak_memory_bytes(),
            worker=self._worker,
            quantization=self._quantization,
        )
        for phase in PHASES:
            seconds = getattr(metrics, f"{phase}_seconds")
            self._metrics.stage_seconds.labels(phase).observe(seconds)
        self._metrics.peak_memory_bytes.set(metrics.peak_memory_bytes)
        return metrics


def _leaves(claim: Claim) -> bool:
    """Whether its pictures go to another checkpoint, which may come without a safety checker."""
    elsewhere = claim.following[0].checkpoint != claim.stage.checkpoint
    return elsewhere and claim.stage.gives is Handover.PICTURES
