"""Claims in, results out: the engine on its own thread, publishing on others.

Prompts are encoded on the caller's thread, pictures are copied, encoded and stored on the
publishers' threads, so the engine's thread does nothing but step. Threads talk by queues; only the
engine's thread touches the engine.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from server.errors import DarkroomError, DeadlineExceeded, GenerationFailed
from server.metrics import WorkerMetrics
from server.spec import Failure, GenerationState, Metrics, Progress, Warn
from server.storage import ImageStore
from server.workers.denoiser import Picture
from server.workers.engine import Engine, Outcome, Step, Ticket
from server.workers.publish import publish
from server.workers.stage import Claim, Drawn, Ended, Finish, Result

log = logging.getLogger("darkroom.studio")

PUBLISHERS = 2
PACE_SMOOTHING = 0.2


@dataclass(slots=True)
class InFlight:
    """A claim, its tickets, and what has come out of the engine so far."""

    claim: Claim
    tickets: list[Ticket] = field(default_factory=list)
    """Empty until its prompts are encoded."""
    encode_seconds: float = 0.0
    pictures: dict[int, Picture] = field(default_factory=dict)

    @property
    def progress(self) -> Progress:
        """Steps over all its images."""
        return Progress(
            steps_done=sum(t.steps_done for t in self.tickets),
            steps_total=sum(t.state.steps_total for t in self.tickets),
        )

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """What its tickets warned of, each once."""
        return tuple(dict.fromkeys(w for t in self.tickets for w in t.state.warnings))


class EngineStudio:
    """The `Studio` of a real worker."""

    def __init__(
        self,
        engine: Engine,
        store: ImageStore,
        *,
        capacity: int,
        worker: str,
        version: str,
        metrics: WorkerMetrics,
        peak_memory_bytes: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._store = store
        self._capacity = capacity
        self._worker = worker
        self._version = version
        self._metrics = metrics
        self._peak_memory_bytes = peak_memory_bytes
        self._lock = threading.Lock()
        self._flights: dict[str, InFlight] = {}
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._publishers = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="publish")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stepping_since: float | None = None
        self._pace = 0.0
        self._busy_seconds = 0.0
        self._lost: BaseException | None = None
        self._closing = False

    def start(self, finish: Finish) -> None:
        """Begin; `finish` is called on a publisher's thread."""
        self._finish = finish
        self._thread.start()

    def room(self) -> int:
        """Images that can be admitted now; never less than one when it is empty."""
        with self._lock:
            return self._capacity - sum(f.claim.spec.num_images for f in self._flights.values())

    def admit(self, claim: Claim) -> None:
        """Encode its prompts on this thread, then hand its tickets to the engine's."""
        flight = InFlight(claim)
        with self._lock:
            self._flights[claim.id] = flight
        began = time.monotonic()
        try:
            flight.tickets = self._tickets(claim, began + claim.deadline - time.time())
        except Exception as error:  # a spec that cannot be prepared fails itself only
            log.exception("could not be prepared", extra={"generation": claim.id})
            result = ended_by(error)
            self._inbox.put(lambda: self._end(flight, result))
            return
        flight.encode_seconds = time.monotonic() - began
        self._inbox.put(lambda: self._join(flight))

    def cancel(self, id: str) -> None:
        """Stop drawing between two steps; `finish` is told, once."""
        self._stop_flight(id, Ended(GenerationState.CANCELED))

    def abandon(self, id: str) -> None:
        """Stop drawing between two steps; nobody is told."""
        self._stop_flight(id, None)

    def progress(self) -> Mapping[str, Progress]:
        """Where each claim in flight stands."""
        with self._lock:
            return {id: flight.progress for id, flight in self._flights.items()}

    def pace(self) -> float:
        """Device seconds per generation, smoothed over the last few."""
        return self._pace

    def step_age(self) -> float:
        """Seconds the device call in progress has taken so far."""
        since = self._stepping_since
        return 0.0 if since is None else time.monotonic() - since

    def lost(self) -> BaseException | None:
        """What ended the engine's thread, if it has ended."""
        return self._lost

    def close(self) -> None:
        """Stop the threads; what is in flight is abandoned, what is drawn is still published."""
        self._inbox.put(self._stop)
        self._thread.join()
        self._publishers.shutdown()

    def _tickets(self, claim: Claim, deadline: float) -> list[Ticket]:
        spec = claim.spec
        states = [self._engine.denoiser.prepare(spec, index) for index in range(spec.num_images)]
        return [
            Ticket(claim.id, index, state, spec.priority, deadline)
            for index, state in enumerate(states)
        ]

    def _stop_flight(self, id: str, result: Result | None) -> None:
        # The flight is looked up now, not on the engine's thread: by then another claim of the
        # same generation may have come.
        with self._lock:
            flight = self._flights.get(id)
        if flight is not None:
            self._inbox.put(lambda: self._end(flight, result))

    def _stop(self) -> None:
        self._closing = True

    def _run(self) -> None:
        try:
            while not self._closing:
                self._read_inbox()
                if self._engine.busy:
                    self._turn()
        except BaseException as error:  # whatever ends this thread, the worker must learn of it
            log.critical("the engine is lost", exc_info=error)
            self._lost = error

    def _read_inbox(self) -> None:
        """Everything that has come; waits for something only when there is nothing to step."""
        if not self._engine.busy:
            self._inbox.get()()
        while True:
            try:
                self._inbox.get_nowait()()
            except Empty:
                return

    def _turn(self) -> None:
        self._stepping_since = time.monotonic()
        step = self._engine.step()
        self._stepping_since = None
        self._record(step)
        for outcome in step.outcomes:
            self._collect(outcome)

    def _record(self, step: Step) -> None:
        self._busy_seconds += step.seconds + step.decode_seconds
        if step.rows:
            self._metrics.step_seconds.observe(step.seconds)
            self._metrics.step_rows.observe(step.rows)
        with self._lock:
            in_flight = sum(len(f.tickets) for f in self._flights.values())
        self._metrics.tickets_in_flight.set(in_flight)

    def _join(self, flight: InFlight) -> None:
        if self._flights.get(flight.claim.id) is flight:  # not stopped while it was prepared
            for ticket in flight.tickets:
                self._engine.admit(ticket)

    def _collect(self, outcome: Outcome) -> None:
        """Keep the picture; end the generation with its last picture or its first error."""
        flight = self._flights.get(outcome.ticket.id)
        if flight is None or outcome.ticket not in flight.tickets:
            return
        if outcome.error is not None:
            self._end(flight, ended_by(outcome.error))
            return
        assert outcome.picture is not None
        flight.pictures[outcome.ticket.index] = outcome.picture
        if len(flight.pictures) == len(flight.tickets) and self._forget(flight):
            self._publishers.submit(self._publish, flight, time.monotonic())

    def _end(self, flight: InFlight, result: Result | None) -> None:
        self._engine.drop(flight.tickets)
        if self._forget(flight) and result is not None:
            self._publishers.submit(self._finish, flight.claim, result)

    def _forget(self, flight: InFlight) -> bool:
        """False if it had been forgotten before."""
        with self._lock:
            if self._flights.get(flight.claim.id) is not flight:
                return False
            del self._flights[flight.claim.id]
        cost, self._busy_seconds = self._busy_seconds, 0.0
        self._pace = self._pace + PACE_SMOOTHING * (cost - self._pace) if self._pace else cost
        return True

    def _publish(self, flight: InFlight, drawn_at: float) -> None:
        claim = flight.claim
        pictures = [flight.pictures[index] for index in range(len(flight.tickets))]
        try:
            images = publish(claim, pictures, self._store, self._version)
            seconds = time.monotonic() - drawn_at
            result: Result = Drawn(images, self._measured(flight, seconds), flight.warnings)
        except Exception as error:  # one generation's pictures, not the publisher
            log.exception("could not be published", extra={"generation": claim.id})
            result = ended_by(error)
        self._finish(claim, result)

    def _measured(self, flight: InFlight, publish_seconds: float) -> Metrics:
        claim, tickets = flight.claim, flight.tickets
        steps = sum(t.steps_done for t in tickets)
        metrics = Metrics(
            queue_seconds=claim.started_at - claim.created_at,
            encode_seconds=flight.encode_seconds,
            denoise_seconds=max(t.denoise_seconds for t in tickets),
            decode_seconds=sum(t.decode_seconds for t in tickets),
            publish_seconds=publish_seconds,
            total_seconds=time.time() - claim.created_at,
            steps=steps,
            mean_batch_rows=sum(t.batch_rows for t in tickets) / steps,
            peak_memory_bytes=self._peak_memory_bytes(),
            worker=self._worker,
        )
        for phase in ("queue", "encode", "denoise", "decode", "publish"):
            seconds = getattr(metrics, f"{phase}_seconds")
            self._metrics.stage_seconds.labels(phase).observe(seconds)
        self._metrics.peak_memory_bytes.set(metrics.peak_memory_bytes)
        self._metrics.images_total.inc(len(tickets))
        return metrics


def ended_by(error: Exception) -> Ended:
    """What a caller is told. Foreign messages stay in the log: they may tell paths."""
    if isinstance(error, DeadlineExceeded):
        return Ended(GenerationState.EXPIRED, Failure(code=error.code, message=error.message))
    if isinstance(error, DarkroomError):
        return Ended(GenerationState.FAILED, Failure(code=error.code, message=error.message))
    message = f"the worker could not draw it ({type(error).__name__}); its log has the details"
    return Ended(GenerationState.FAILED, Failure(code=GenerationFailed.code, message=message))
