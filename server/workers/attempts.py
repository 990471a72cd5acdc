"""What the trace of a generation tells of each attempt to draw one of its stages.

    queue CHECKPOINT    in its line
    draw CHECKPOINT     from the claim until its end was written: encode, denoise, decode, publish

Both go on from where the generation was accepted. They are told when all of it is over, of times
that were taken anyway, so drawing is none the slower for it. An attempt whose worker died is told
by whoever took it over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from server.broker.record import Generation
from server.spec import AnySpec, GenerationState
from server.tracing import SILENT, Attributes, Context, Kind, Tracer, about
from server.workers.entry import Entry, Told
from server.workers.stage import Claim, Drawn, Ended, Handed, Phase, Result

log = logging.getLogger("darkroom.worker")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Plain values. Times are seconds since the epoch."""

    generation: str
    context: Context
    spec: AnySpec
    """Of the stage."""
    stage: int
    """From 1."""
    number: int
    waits_since: float
    started_at: float | None
    """None: it was never claimed."""
    worker: str

    @classmethod
    def of_claim(cls, claim: Claim, context: Context, worker: str) -> Self:
        """Of ours."""
        since = claim.queued_at if claim.waits_since is None else claim.waits_since
        return cls(
            claim.id,
            context,
            claim.spec,
            claim.number + 1,
            claim.attempt,
            since,
            claim.started_at,
            worker,
        )

    @classmethod
    def of_entry(cls, entry: Entry, worker: str) -> Self | None:
        """As a job says that somebody else has claimed, or nobody; None where it cannot be read, or
        has no trace. `worker` is ours."""
        try:
            record = Generation.from_hash(entry.record)
            context, spec = Context.read(record.traceparent), record.stage.spec
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            return None
        if context is None:
            return None
        started = entry.job.started_at
        return cls(
            entry.id,
            context,
            spec,
            record.stage_number + 1,
            entry.attempt,
            entry.waits_since or record.queued_at or record.created_at,
            None if started is None else started.timestamp(),
            worker if started is None else entry.job.worker_name or worker,
        )

    @property
    def said(self) -> Attributes:
        """Of each of its spans."""
        return {
            **about(self.spec),
            "darkroom.generation": self.generation,
            "darkroom.stage": self.stage,
            "darkroom.attempt": self.number,
            "darkroom.worker": self.worker,
        }


class Attempts:
    """Told by one worker. Says nothing where its tracer is silent."""

    def __init__(self, tracer: Tracer = SILENT, worker: str = "") -> None:
        self._tracer = tracer
        self._worker = worker

    def saw(self, entry: Entry) -> None:
        """A job has changed: lines about it are to name its trace. Then, what there is to tell of
        one that is not ours."""
        if not self._tracer.on or b"traceparent" not in entry.record:
            return
        said = entry.record[b"traceparent"].decode("latin-1")
        self._tracer.remember(entry.id, Context.read(said))
        attempt = Attempt.of_entry(entry, self._worker) if entry.told else None
        if attempt is not None:
            for told in entry.told:
                self._tell(attempt, told)

    def settled(self, claim: Claim, result: Result, state: GenerationState) -> None:
        """The end of a claim is written, and the generation is in this state from now on."""
        outcome, error = _outcome(result, state)
        self._tell_claim(claim, Told(outcome, error, time.time()), result)

    def handed_back(self, claim: Claim) -> None:
        """It was not finished in time."""
        self._tell_claim(claim, Told("handed_back", "", time.time()), None)

    def _tell_claim(self, claim: Claim, told: Told, result: Result | None) -> None:
        if self._tracer.on and claim.context is not None:
            self._tell(Attempt.of_claim(claim, claim.context, self._worker), told, result)

    def _tell(self, attempt: Attempt, told: Told, result: Result | None = None) -> None:
        try:
            self._trace(attempt, told, result)
        except Exception:  # a trace must cost nobody a picture
            about_it = {"generation": attempt.generation}
            log.exception("an attempt cannot be traced", extra=about_it)

    def _trace(self, attempt: Attempt, told: Told, result: Result | None) -> None:
        said = {**attempt.said, "darkroom.outcome": told.outcome}
        checkpoint, since = attempt.spec.checkpoint, attempt.waits_since
        started = attempt.started_at
        queue = self._tracer.begin(
            f"queue {checkpoint}",
            attempt.context,
            at=since,
            attributes=said if started is None else attempt.said,
        )
        if started is None:
            queue.end(error=told.error, at=max(since, told.at))
            return
        queue.end(at=max(since, started))
        draw = self._tracer.begin(
            f"draw {checkpoint}", attempt.context, kind=Kind.CONSUMER, at=started, attributes=said
        )
        if result is not None:
            self._tell_phases(draw.context, result.phases, _measures(result))
        draw.end(error=told.error, at=max(started, told.at))

    def _tell_phases(self, parent: Context, phases: Sequence[Phase], measures: Attributes) -> None:
        for phase in phases:
            said = measures if phase.name == "denoise" else None
            span = self._tracer.begin(phase.name, parent, at=phase.began, attributes=said)
            span.end(at=max(phase.began, phase.ended))


def _outcome(result: Result, state: GenerationState) -> tuple[str, str]:
    """In a word, and the code of what went wrong, if something did."""
    code = result.error.code if isinstance(result, Ended) and result.error else state.value
    if state is GenerationState.SUCCEEDED:
        return state.value, ""
    if state is not GenerationState.QUEUED:
        return state.value, code
    return ("handed_on", "") if isinstance(result, Handed) else ("tried_again", code)


def _measures(result: Result) -> Attributes:
    if not isinstance(result, Drawn | Handed):
        return {}
    metrics = result.metrics
    return {
        "darkroom.steps": metrics.steps,
        "darkroom.mean_batch_rows": metrics.mean_batch_rows,
        "darkroom.step_seconds": metrics.denoise_seconds,
    }
