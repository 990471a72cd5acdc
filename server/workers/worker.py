"""One process, one checkpoint, many jobs in flight: an RQ worker that neither forks nor imports.

    main thread   claims the next job when there is room, and hands it to the studio
    beat          renews leases, tells progress, hears of cancels and losses, watches the device
    settle        writes results, as often as it takes until Redis has them
    look          takes over what dead workers held

The studio draws on threads of its own and never waits for Redis: while Redis is away it goes on,
and results wait here. Knows claims, threads and signals; does not know what a picture is.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from queue import SimpleQueue
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.utils import now

from server.broker import delivery
from server.broker.record import WorkerInfo
from server.config import Settings
from server.spec import GenerationState
from server.tracing import SILENT, Tracer
from server.workers.attempts import Attempts
from server.workers.beat import Beat, wait
from server.workers.books import RqWorker
from server.workers.holdings import Holdings
from server.workers.leases import Leases
from server.workers.ledger import Ledger, Refusal, Taken
from server.workers.link import AWAY, persist
from server.workers.lists import Lists
from server.workers.stage import Claim, Ended, Handed, Result, Studio
from server.workers.takeover import Observer, Takeover
from server.workers.watchdog import Watchdog

log = logging.getLogger("darkroom.worker")

POP_SECONDS = 0.5
ROOM_SECONDS = 0.01
REFUSED_SECONDS = 0.2

EX_SOFTWARE = 70
"""Exit status of a process that gave itself up; the supervisor starts a new one."""


class BatchWorker(RqWorker):
    """RQ's idea of a worker, with a loop, signals and bookkeeping of its own.

    `redis` comes from `link.connect`. `name` is made of host, process and something random.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoint: str,
        studio: Studio,
        *,
        redis: Redis,
        name: str,
        device: str,
        observer: Observer,
        watchdog: Watchdog | None = None,
        tracer: Tracer = SILENT,
    ) -> None:
        super().__init__(checkpoint, redis, name)
        self._settings = settings
        self._checkpoint = checkpoint
        self._device = device
        self._studio = studio
        self._observer = observer
        self._attempts = Attempts(tracer, name)
        self._holdings = Holdings()
        self._results: SimpleQueue[tuple[Claim, Result]] = SimpleQueue()
        lease_ms = int(settings.lease_seconds * 1000)
        self._leases = Leases(redis, name, lease_ms=lease_ms)
        self._ledger = Ledger(
            self,
            redis,
            lease_ms=lease_ms,
            retention_seconds=settings.retention_seconds,
            discard=studio.discard,
            least_seconds=studio.least_seconds,
            load=studio.load,
            attempts=self._attempts,
        )
        self._takeover = Takeover(
            self._ledger,
            Lists(self.queues[0], redis),
            redis,
            settings.lease_seconds,
            self._holdings.executions,
            observer,
        )
        self._beat = Beat(
            settings,
            redis,
            studio,
            self._holdings,
            leases=self._leases,
            info=self._info,
            appear=self.appear,
            lose=self._lose,
            give_up=self._give_up,
            beaten=observer.beat,
            watchdog=watchdog,
        )
        self._begun = False
        self._stops = 0
        self._gone = threading.Event()
        self._refused_room, self._refused_at = 0, float("-inf")
        # A SimpleQueue, because a signal handler may put to it whatever it interrupted.
        self._wake: SimpleQueue[None] = SimpleQueue()

    def work(self) -> bool:  # type: ignore[override]  # so that RQ's loop cannot run in its place
        """Serve until SIGTERM or SIGINT, then drain: finish what runs within `drain_seconds` and
        hand back the rest. A second signal hands back at once. The studio is closed with it."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            if threading.current_thread() is threading.main_thread():
                signal.signal(signum, self.request_stop)
        persist(self.connection.ping, give_up=self._stopping)
        self.birth_date = now()
        self._studio.start(self.finish)
        self._begun = True
        beat, look = self._spawn(self._beat.run), self._spawn(self._look)
        self._spawn(self._settle)
        log.info("serving %s as %s", self._checkpoint, self.name)
        self._guard(self._claim)
        self._drain()
        self._leave(beat, look)
        return True

    def request_stop(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Drain; the second time, do not wait for what runs. Safe in a signal handler."""
        self._stops += 1
        self._wake.put(None)
        self._beat.soon()

    def finish(self, claim: Claim, result: Result) -> None:
        """The studio's answer. Returns at once; the result is kept until Redis has it."""
        if self._holdings.end(claim):
            self._results.put((claim, result))

    @property
    def serving(self) -> bool:
        """Whether it takes what is in its queue."""
        return self._begun and not self._stops

    def _stopping(self) -> bool:
        return self._stops > 0

    def _claim(self) -> None:
        while not self._stops:
            self._claim_next()

    def _claim_next(self) -> None:
        room = self._room()
        if room <= 0:
            wait(self._wake, ROOM_SECONDS)
            return
        id = self._pop()
        if id is None:
            return
        if self._stops:
            persist(lambda: self._ledger.restore(id), give_up=self._stopping)
            return
        empty = len(self._holdings) == 0
        answer = persist(
            lambda: self._ledger.claim(id, room=room, empty=empty), give_up=self._stopping
        )
        if isinstance(answer, Taken):
            self._admit(answer)
        elif isinstance(answer, Ended):
            log.info("%s before it was drawn", answer.state.value, extra={"generation": id})
            self._observer.finished(answer.state.value, code=answer.code)
        elif answer is Refusal.NO_ROOM:
            self._refused_room, self._refused_at = room, time.monotonic()

    def _room(self) -> int:
        """Images that may be claimed now. What was refused for lack of room is tried again when
        there is more, or after a moment, as another worker may have taken it."""
        if self._holdings.exclusive():
            return 0
        room = self._studio.room()
        refused = time.monotonic() - self._refused_at < REFUSED_SECONDS
        return 0 if refused and len(self._holdings) and room <= self._refused_room else room

    def _pop(self) -> str | None:
        try:
            return self._ledger.pop(POP_SECONDS)
        except AWAY as error:  # an id whose reply was lost stays where others find it
            refused = isinstance(error, ResponseError)
            log.log(logging.WARNING if refused else logging.DEBUG, "nothing popped: %s", error)
            wait(self._wake, POP_SECONDS)
            return None

    def _admit(self, taken: Taken) -> None:
        claim = taken.claim
        self._holdings.take(claim, alone=taken.alone)
        self._observer.claimed()
        log.info("claimed%s", " alone" if taken.alone else "", extra={"generation": claim.id})
        self._studio.admit(claim)

    def _drain(self) -> None:
        log.info("draining, %d in flight", len(self._holdings))
        deadline = time.monotonic() + self._settings.drain_seconds
        while len(self._holdings) and self._stops < 2 and time.monotonic() < deadline:
            wait(self._wake, ROOM_SECONDS)
        deadline = time.monotonic() + self._settings.lease_seconds
        for claim in sorted(self._holdings.unfinished(), key=lambda claim: claim.id):
            self._hand_back(claim, deadline)  # the oldest first, as others claim meanwhile
        while len(self._holdings) and time.monotonic() < deadline:
            wait(self._wake, ROOM_SECONDS)

    def _hand_back(self, claim: Claim, deadline: float) -> None:
        self._studio.abandon(claim)
        over = lambda: time.monotonic() > deadline  # noqa: E731
        if persist(lambda: self._ledger.hand_back(claim), give_up=over):
            log.info("handed back, not finished in time", extra={"generation": claim.id})
            self._attempts.handed_back(claim)
        self._holdings.let_go(claim)

    def _leave(self, *threads: threading.Thread) -> None:
        self._gone.set()
        self._beat.stop()
        for thread in threads:
            thread.join(timeout=self._settings.lease_seconds)
        closed = self._studio.close(self._settings.lease_seconds)
        try:
            with self.connection.pipeline() as pipe:
                delivery.gone(pipe, self._info())
                pipe.execute()
            self.register_death()  # type: ignore[no-untyped-call]
        except RedisError as error:
            log.warning("left without a word, Redis is away: %s", error)
        if not closed:
            log.critical("stopped in the middle of a step that does not end")
            os._exit(EX_SOFTWARE)
        log.info("stopped")

    def _settle(self) -> None:
        while True:
            self._write(*self._results.get())

    def _write(self, claim: Claim, result: Result) -> None:
        state = persist(lambda: self._ledger.finish(claim, result))
        if state is None:
            self._lose(claim)
            return
        self._attempts.settled(claim, result, state)
        self._holdings.let_go(claim)
        self._wake.put(None)
        about = {"generation": claim.id}
        if state is not GenerationState.QUEUED:
            log.info("%s", state.value, extra=about)
            code = result.code if isinstance(result, Ended) and result.state is state else ""
            self._observer.finished(state.value, claim.spec, code)
        elif isinstance(result, Handed):
            log.info("handed on to %s", claim.following[0].checkpoint, extra=about)
        else:
            log.warning("it is tried again in a while", extra=about)

    def _lose(self, claim: Claim) -> None:
        # By now the same generation may be here again, as another claim: that one goes on.
        self._studio.abandon(claim)
        if self._holdings.let_go(claim):
            log.warning("lost to another worker", extra={"generation": claim.id})
            self._observer.lost()

    def _look(self) -> None:
        self._takeover.run(self.queues[0], self._gone)

    def _spawn(self, body: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._guard, args=(body,), daemon=True)
        thread.start()
        return thread

    def _guard(self, body: Callable[[], None]) -> None:
        """A worker of which only a part goes on would hold its claims for ever."""
        try:
            body()
        except BaseException as error:
            log.critical("a thread of the worker failed", exc_info=True)
            self._give_up(f"it cannot go on without that thread: {error!r}")

    def _give_up(self, reason: str) -> None:
        """Nothing in this process can mend it: let others take over at once, and end."""
        log.critical("giving up: %s", reason)
        try:
            self._leases.drop(self._holdings.claims())
        except RedisError as error:
            log.warning("could not return the leases, they will expire: %s", error)
        os._exit(EX_SOFTWARE)

    def _info(self) -> WorkerInfo:
        pulse = self._studio.pulse()
        return WorkerInfo(
            name=self.name,
            checkpoint=self._checkpoint,
            device=self._device,
            state="draining" if self._stops else "ready",
            capacity=self._settings.capacity,
            in_flight=len(self._holdings),
            speed=self._studio.speed(),
            **asdict(self._studio.load()),
            images=pulse.images,
            step_rows=pulse.step_rows,
            step_seconds=pulse.step_seconds,
        )
