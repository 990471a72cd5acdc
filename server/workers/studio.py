"""Claims in, results out: the engine on its own thread, preparing and publishing on others.

    prepare   loads what a claim starts from and encodes its prompts
    engine    steps, and does nothing else
    publish   copies, encodes and stores what was drawn
    show      the same of previews, for who watches

Threads talk by queues; only the engine's thread touches the engine, and it alone decides how a
flight ends. A store that is away is waited for until the deadline, before drawing and after.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from server.catalog import Safety
from server.errors import DarkroomError, DeadlineExceeded, InvalidSpec, Unavailable
from server.forecast import OPTIMISM, Load, Speed
from server.metrics import WorkerMetrics
from server.spec import GenerationState, Progress, Quantization
from server.stages import Stage
from server.storage import ImageStore
from server.workers import archive
from server.workers.archive import Archive, longer
from server.workers.calls import Calls
from server.workers.engine import Engine, Outcome, Step
from server.workers.finishing import Finisher
from server.workers.flight import Flight, ended_by
from server.workers.meter import Meter
from server.workers.preparing import Preparer
from server.workers.remeasuring import Remeasuring
from server.workers.showing import Show, Showing
from server.workers.stage import Claim, Ended, Finish, Pulse, Result
from server.workers.threads import Threads
from server.workers.warmup import WarmUp

log = logging.getLogger("darkroom.studio")

PUBLISHERS = 2
READY = 4
"""One image for so many that share a step is made ready meanwhile."""


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
        safety: Safety = Safety.OFF,
        quantization: Quantization = Quantization.NONE,
        speed: Speed | None = None,
        warm_up: WarmUp | None = None,
        show: Show | None = None,
        begin_engine: Callable[[], object] = lambda: None,
        begin_publisher: Callable[[], object] = lambda: None,
    ) -> None:
        self._engine = engine
        if speed is not None:
            engine.adopt(speed)
        store.on_failure(metrics.store_errors_total.inc)
        self._archive = Archive(store, version, quantization)
        self._calls = Calls()
        self._finisher = Finisher(
            self._archive,
            self._calls,
            metrics,
            worker=worker,
            peak_memory_bytes=peak_memory_bytes,
            safety=safety,
            quantization=quantization,
            denoiser=engine.denoiser,
        )
        self._closing = threading.Event()
        self._showing = Showing(None if safety.hides else show, self._calls, begin_publisher)
        self._preparer = Preparer(
            self._archive, self._calls, engine.denoiser, self._showing, self._closing
        )
        self._capacity = capacity
        self._metrics = metrics
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}  # by execution
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._begin_engine = begin_engine
        self._preparing = ThreadPoolExecutor(1, "prepare", initializer=begin_publisher)
        self._publishers = ThreadPoolExecutor(PUBLISHERS, "publish", initializer=begin_publisher)
        self._threads = Threads()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._meter = Meter(speed, too_large=lambda: engine.too_large)
        self._again = Remeasuring(
            warm_up, engine, self._meter, self._calls, idle=lambda: not self._flights
        )
        self._pulse = Pulse()

    def start(self, finish: Finish) -> None:
        """Begin; `finish` is called on a publisher's thread."""
        self._finish = finish
        self._thread.start()

    def room(self) -> int:
        """Images that can be admitted now: some more than share a step, so that whoever is next is
        ready when a picture is done. As many again may be published; more hold back the claims, so
        that a slow store does not fill the memory with pictures."""
        most = self._capacity + self._capacity // READY
        with self._lock:
            flights = [(f.claim.spec.num_images, f.over) for f in self._flights.values()]
        drawing = sum(images for images, over in flights if not over)
        return min(most - drawing, 2 * most - sum(images for images, _ in flights))

    def admit(self, claim: Claim) -> None:
        """Prepare its tickets, then hand them to the engine's thread."""
        flight = Flight(claim, self._meter.load(claim.stage))
        with self._lock:
            self._flights[claim.execution] = flight
        self._threads.submit(self._preparing, self._prepare, flight, archive.SHORTEST_PAUSE_SECONDS)

    def cancel(self, claim: Claim) -> None:
        """Stop drawing between two steps; `finish` is told, once."""
        self._stop(claim, Ended(GenerationState.CANCELED))

    def abandon(self, claim: Claim) -> None:
        """Stop drawing between two steps; nobody is told."""
        self._stop(claim, None)

    def discard(self, keys: Sequence[str]) -> None:
        """Remove these from the store."""
        with contextlib.suppress(RuntimeError):  # closed: then they stay until it is deleted
            self._threads.submit(self._publishers, self._archive.discard, keys)

    def progress(self) -> Mapping[str, Progress]:
        """Where each claim stands that is being drawn or published."""
        with self._lock:
            flights = list(self._flights.values())
        return {flight.claim.id: flight.progress for flight in flights if flight.tickets}

    def speed(self) -> Speed | None:
        """What was measured when it warmed up, and since."""
        return self._meter.speed

    def least_seconds(self, stage: Stage) -> float:
        """That it takes to draw a stage, as far as that can be predicted."""
        return OPTIMISM * self._meter.duration(stage)

    def load(self, more: Stage | None = None) -> Load:
        """What it has in hand, with `more` too."""
        with self._lock:
            loads = [flight.load for flight in self._flights.values()]
        return self._meter.total(loads if more is None else [*loads, self._meter.load(more)])

    def pulse(self) -> Pulse:
        """What is being drawn at this moment."""
        return self._pulse

    def step_age(self) -> float:
        """Seconds the longest device call in progress has taken so far."""
        return self._calls.age()

    def lost(self) -> BaseException | None:
        """What ended one of the threads, if one has ended."""
        return self._threads.lost

    def close(self, seconds: float) -> bool:
        """Stop the threads; what is in flight is abandoned, what is drawn is still published.

        False if they have not ended in time.
        """
        deadline = time.monotonic() + seconds
        self._closing.set()
        self._archive.close()
        self._inbox.put(lambda: None)
        self._thread.join(seconds)
        self._preparing.shutdown(wait=False, cancel_futures=True)
        self._publishers.shutdown(wait=False)
        self._showing.close()
        done = self._threads.wait(deadline - time.monotonic())
        return done and not self._thread.is_alive()

    def _prepare(self, flight: Flight, pause: float) -> None:
        """`pause`: seconds until the next try where the store is away."""
        if flight.over or self._closing.is_set():
            return
        try:
            self._preparer.make_ready(flight)
        except Unavailable as error:
            self._prepare_later(flight, pause, error)
        except Exception as error:  # a spec that cannot be prepared fails itself only
            self._refuse(flight, error)
        else:
            self._inbox.put(lambda: self._join(flight))

    def _refuse(self, flight: Flight, error: Exception) -> None:
        # What is wrong with a request is told to its caller; a traceback is for our own faults.
        ours = None if isinstance(error, DarkroomError) else error
        about = {"generation": flight.claim.id}
        # Of a request's fault the code alone: the words may repeat a part of its prompt.
        said = error.code if isinstance(error, InvalidSpec) else error
        log.warning("could not be prepared: %s", said, exc_info=ours, extra=about)
        result = ended_by(error, flight.claim.spec)
        self._inbox.put(lambda: self._end(flight, result))

    def _prepare_later(self, flight: Flight, pause: float, error: Unavailable) -> None:
        """Until its deadline. Others do not wait behind it."""
        left = flight.claim.deadline - time.time()
        if left <= 0:
            late = f"its deadline passed before it could be prepared: {error.message}"
            self._refuse(flight, DeadlineExceeded(late))
            return
        log.warning("trying again: %s", error, extra={"generation": flight.claim.id})
        timer = threading.Timer(min(pause, left), self._prepare_soon, (flight, longer(pause)))
        timer.daemon = True
        timer.start()

    def _prepare_soon(self, flight: Flight, pause: float) -> None:
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._threads.submit(self._preparing, self._prepare, flight, pause)

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
            self._threads.lost = error

    def _read_inbox(self) -> None:
        """Everything that has come; waits for something only when there is nothing to step."""
        if not self._engine.busy:
            self._pulse = Pulse()
            self._meter.rest()
            self._again.next(self._inbox)()
        while True:
            try:
                self._inbox.get_nowait()()
            except Empty:
                return

    def _turn(self) -> None:
        with self._calls.watched():
            step = self._engine.step()
        self._record(step)
        for preview in step.previews:
            if flight := self._flights.get(preview.ticket.execution):
                self._showing.offer(flight.claim, preview)
        for outcome in step.outcomes:
            self._collect(outcome)

    def _record(self, step: Step) -> None:
        self._meter.stepped(step)
        if step.rows:
            self._metrics.stepped(
                step.rows, step.pixels, step.seconds, most_pixels=self._engine.max_step_pixels
            )
            self._pulse = Pulse(self._engine.in_flight, step.rows, step.seconds)
            self._metrics.step_drift_ratio.set(self._meter.drift)
        for remedy in step.remedies:
            self._metrics.out_of_memory_total.labels(remedy).inc()
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
            self._end(flight, ended_by(outcome.error, flight.claim.spec))
            return
        assert outcome.picture is not None
        flight.pictures[outcome.ticket.index] = outcome.picture
        if flight.drawn:
            self._leave(flight)
            flight.drawn_at = time.monotonic()
            self._threads.submit(self._publishers, self._publish, flight)

    def _end(self, flight: Flight, result: Result | None) -> None:
        if flight.over:
            return
        self._engine.drop(flight.tickets)
        self._leave(flight)
        self._threads.submit(self._publishers, self._tell, flight, result)

    def _leave(self, flight: Flight) -> None:
        flight.over = True

    def _publish(self, flight: Flight) -> None:
        self._tell(flight, self._finisher.finish(flight))

    def _tell(self, flight: Flight, result: Result | None) -> None:
        with self._lock:
            del self._flights[flight.claim.execution]
        if result is None or isinstance(result, Ended):
            reason = "abandoned" if result is None else result.state
            self._metrics.wasted_steps_total.labels(reason).inc(flight.progress.steps_done)
        if result is not None:
            self._finish(flight.claim, flight.traced(result))
