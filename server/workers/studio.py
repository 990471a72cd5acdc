"""Claims in, results out: the engine on its own thread, publishing on others.

Prompts are encoded on the caller's thread, pictures are copied, encoded and stored on the
publishers' threads, so the engine's thread does nothing but step. Threads talk by queues; only the
engine's thread touches the engine, and it alone decides how a flight ends.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from typing import Any

from server.errors import InvalidSpec, Unavailable
from server.metrics import WorkerMetrics
from server.spec import GenerationState, ImageInfo, Metrics, Progress
from server.storage import ImageStore
from server.workers.engine import Engine, Outcome, Step, Ticket
from server.workers.flight import Flight, ended_by
from server.workers.publish import Pixels, publish
from server.workers.stage import Claim, Drawn, Ended, Finish, Result

log = logging.getLogger("darkroom.studio")

PUBLISHERS = 2
PACE_SMOOTHING = 0.2
SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


class EngineStudio:
    """The `Studio` of a real worker. Its threads call `begin_…` before anything else."""

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
        begin_engine: Callable[[], object] = lambda: None,
        begin_publisher: Callable[[], object] = lambda: None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._capacity = capacity
        self._worker = worker
        self._version = version
        self._metrics = metrics
        self._peak_memory_bytes = peak_memory_bytes
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}  # by execution
        self._calls: dict[object, float] = {}
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._begin_engine = begin_engine
        self._publishers = ThreadPoolExecutor(PUBLISHERS, "publish", initializer=begin_publisher)
        self._publishing: set[Future[None]] = set()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._pace = 0.0
        self._busy_seconds = 0.0
        self._lost: BaseException | None = None
        self._closing = threading.Event()

    def start(self, finish: Finish) -> None:
        """Begin; `finish` is called on a publisher's thread."""
        self._finish = finish
        self._thread.start()

    def room(self) -> int:
        """Images that can be admitted now. What is being published still takes its room, so that a
        slow store holds back the claims and not the pictures."""
        with self._lock:
            return self._capacity - sum(f.claim.spec.num_images for f in self._flights.values())

    def admit(self, claim: Claim) -> None:
        """Encode its prompts on this thread, then hand its tickets to the engine's."""
        flight = Flight(claim)
        with self._lock:
            self._flights[claim.execution] = flight
        began = time.monotonic()
        try:
            with self._device_call():
                flight.tickets = self._tickets(claim, began + claim.deadline - time.time())
        except Exception as error:  # a spec that cannot be prepared fails itself only
            log.exception("could not be prepared", extra={"generation": claim.id})
            result = ended_by(error)
            self._inbox.put(lambda: self._end(flight, result))
            return
        flight.encode_seconds = time.monotonic() - began
        self._inbox.put(lambda: self._join(flight))

    def cancel(self, claim: Claim) -> None:
        """Stop drawing between two steps; `finish` is told, once."""
        self._stop(claim, Ended(GenerationState.CANCELED))

    def abandon(self, claim: Claim) -> None:
        """Stop drawing between two steps; nobody is told."""
        self._stop(claim, None)

    def progress(self) -> Mapping[str, Progress]:
        """Where each claim stands that is being drawn or published."""
        with self._lock:
            flights = list(self._flights.values())
        return {flight.claim.id: flight.progress for flight in flights if flight.tickets}

    def pace(self) -> float:
        """Device seconds per generation, smoothed over the last few."""
        return self._pace

    def step_age(self) -> float:
        """Seconds the longest device call in progress has taken so far."""
        with self._lock:
            oldest = min(self._calls.values(), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def lost(self) -> BaseException | None:
        """What ended one of the threads, if one has ended."""
        return self._lost

    def close(self, seconds: float) -> bool:
        """Stop the threads; what is in flight is abandoned, what is drawn is still published.

        False if they have not ended in time.
        """
        deadline = time.monotonic() + seconds
        self._closing.set()
        self._inbox.put(lambda: None)
        self._thread.join(seconds)
        self._publishers.shutdown(wait=False)
        late = wait(set(self._publishing), max(0.0, deadline - time.monotonic())).not_done
        return not late and not self._thread.is_alive()

    def _tickets(self, claim: Claim, deadline: float) -> list[Ticket]:
        spec = claim.spec
        states = [self._engine.denoiser.prepare(spec, index) for index in range(spec.num_images)]
        warnings = states[0].warnings
        if spec.strict and warnings:
            raise InvalidSpec(warnings[0].message, field=warnings[0].field)
        return [
            Ticket(claim.id, index, state, spec.priority, deadline, claim.execution)
            for index, state in enumerate(states)
        ]

    def _stop(self, claim: Claim, result: Result | None) -> None:
        with self._lock:
            flight = self._flights.get(claim.execution)
        if flight is not None:
            self._inbox.put(lambda: self._end(flight, result))

    def _run(self) -> None:
        try:
            self._begin_engine()
            while not self._closing.is_set():
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
        with self._device_call():
            step = self._engine.step()
        self._record(step)
        for outcome in step.outcomes:
            self._collect(outcome)

    def _record(self, step: Step) -> None:
        self._busy_seconds += step.seconds + step.decode_seconds
        if step.rows:
            self._metrics.step_seconds.observe(step.seconds)
            self._metrics.step_rows.observe(step.rows)
        self._metrics.tickets_in_flight.set(self._engine.in_flight)

    def _join(self, flight: Flight) -> None:
        if not flight.over:  # not stopped while it was prepared
            for ticket in flight.tickets:
                self._engine.admit(ticket)

    def _collect(self, outcome: Outcome) -> None:
        """Keep the picture; end the generation with its last picture or its first error."""
        flight = self._flights.get(outcome.ticket.execution)
        if flight is None or flight.over:  # another of its tickets has ended it in the same step
            return
        if outcome.error is not None:
            self._end(flight, ended_by(outcome.error))
            return
        assert outcome.picture is not None
        flight.pictures[outcome.ticket.index] = outcome.picture
        if flight.drawn:
            self._leave(flight)
            self._submit(self._publish, flight, time.monotonic())

    def _end(self, flight: Flight, result: Result | None) -> None:
        if flight.over:
            return
        self._engine.drop(flight.tickets)
        self._leave(flight)
        self._submit(self._tell, flight, result)

    def _leave(self, flight: Flight) -> None:
        flight.over = True
        cost, self._busy_seconds = self._busy_seconds, 0.0
        self._pace = self._pace + PACE_SMOOTHING * (cost - self._pace) if self._pace else cost

    def _submit(self, task: Callable[..., None], *arguments: Any) -> None:
        future = self._publishers.submit(self._guarded, task, *arguments)
        self._publishing.add(future)
        future.add_done_callback(self._publishing.discard)

    def _guarded(self, task: Callable[..., None], *arguments: Any) -> None:
        try:
            task(*arguments)
        except BaseException as error:  # a pool would keep it to itself
            log.critical("a publisher is lost", exc_info=error)
            self._lost = error

    def _publish(self, flight: Flight, drawn_at: float) -> None:
        claim = flight.claim
        pictures = [flight.pictures[index] for index in range(claim.spec.num_images)]
        try:
            with self._device_call():
                pixels = [picture.array() for picture in pictures]
            images = self._stored(claim, pixels)
            metrics = self._measured(flight, time.monotonic() - drawn_at)
            result: Result = Drawn(images, metrics, flight.warnings)
        except Exception as error:  # one generation's pictures, not the publisher
            log.exception("could not be published", extra={"generation": claim.id})
            result = ended_by(error)
        self._tell(flight, result)

    def _stored(self, claim: Claim, pixels: list[Pixels]) -> tuple[ImageInfo, ...]:
        """A store that is away is waited for until the deadline: the pictures are drawn."""
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return publish(claim, pixels, self._store, self._version)
            except Unavailable as error:
                if time.time() + pause > claim.deadline or self._closing.wait(pause):
                    raise
                log.warning("trying again: %s", error, extra={"generation": claim.id})
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _tell(self, flight: Flight, result: Result | None) -> None:
        with self._lock:
            del self._flights[flight.claim.execution]
        if result is not None:
            self._finish(flight.claim, result)

    def _measured(self, flight: Flight, publish_seconds: float) -> Metrics:
        metrics = flight.metrics(
            publish_seconds=publish_seconds,
            at=time.time(),
            peak_memory_bytes=self._peak_memory_bytes(),
            worker=self._worker,
        )
        for phase in ("queue", "encode", "denoise", "decode", "publish"):
            seconds = getattr(metrics, f"{phase}_seconds")
            self._metrics.stage_seconds.labels(phase).observe(seconds)
        self._metrics.peak_memory_bytes.set(metrics.peak_memory_bytes)
        self._metrics.images_total.inc(len(flight.tickets))
        return metrics

    @contextlib.contextmanager
    def _device_call(self) -> Iterator[None]:
        """Watched by `step_age`: a call that never returns must not go unnoticed."""
        call = object()
        with self._lock:
            self._calls[call] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._calls[call]
