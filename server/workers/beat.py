"""The worker's pulse: leases, progress, cancels and signs of life in one round trip a beat."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from redis.client import Pipeline

from server.broker import delivery
from server.broker.record import WorkerInfo
from server.config import Settings
from server.workers.holdings import Holdings
from server.workers.leases import Leases, Verdict
from server.workers.link import AWAY
from server.workers.stage import Claim, Studio
from server.workers.watchdog import Watchdog

log = logging.getLogger("darkroom.worker")

RQ_BEAT_SECONDS = 2.0


class Beat:
    """Runs on a thread of its own, so that neither drawing nor encoding can delay a lease."""

    def __init__(
        self,
        settings: Settings,
        redis: Any,
        studio: Studio,
        holdings: Holdings,
        *,
        leases: Leases,
        info: Callable[[], WorkerInfo],
        appear: Callable[[Pipeline, bool], None],
        lose: Callable[[Claim], None],
        give_up: Callable[[str], None],
        beaten: Callable[[float], None],
        watchdog: Watchdog | None,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._studio = studio
        self._holdings = holdings
        self._leases = leases
        self._info = info
        self._appear = appear
        self._lose = lose
        self._give_up = give_up
        self._beaten = beaten
        self._watchdog = watchdog
        self._appeared_at = float("-inf")
        self._away = False
        self._stopped = False
        # A SimpleQueue, because a signal handler may put to it whatever it interrupted.
        self._wake: SimpleQueue[None] = SimpleQueue()

    def soon(self) -> None:
        """Beat now, not in a while. Safe in a signal handler."""
        self._wake.put(None)

    def stop(self) -> None:
        """Beat no more."""
        self._stopped = True
        self.soon()

    def run(self) -> None:
        """Beat until stopped, whether Redis is there or not."""
        while not self._stopped:
            if self._watchdog is not None:
                self._watchdog.pet()
            self._watch_device()
            try:
                self.beat()
                self._note(None)
            except AWAY as error:
                self._note(error)
            wait(self._wake, self._settings.beat_seconds)
        if self._watchdog is not None:
            self._watchdog.chain()

    def beat(self) -> None:
        """Tell Redis how things stand, and heed what it answers."""
        claims, progress = self._holdings.claims(), self._studio.progress()
        due = time.monotonic() - self._appeared_at >= RQ_BEAT_SECONDS
        with self._redis.pipeline(transaction=False) as pipe:
            self._leases.renew(pipe, claims, progress)
            delivery.alive(
                pipe,
                self._info(),
                ttl_ms=int(self._settings.lease_seconds * 1000),
                served_seconds=self._settings.no_worker_seconds,
            )
            if due:
                self._appear(pipe, bool(claims))
            began = time.monotonic()
            verdicts: list[bytes] = pipe.execute()[0]
        self._beaten(time.monotonic() - began)
        self._leases.renewed(claims, progress)
        if due:
            self._appeared_at = time.monotonic()
        for claim, verdict in zip(claims, verdicts, strict=True):
            self._heed(claim, Verdict(verdict.decode()))

    def _heed(self, claim: Claim, verdict: Verdict) -> None:
        # The end of a claim that is being written looks like a loss, so it is none.
        if verdict is Verdict.HELD or not self._holdings.unended(claim):
            return
        if verdict is Verdict.LOST:
            self._lose(claim)
        else:
            self._studio.cancel(claim)

    def _watch_device(self) -> None:
        lost, age = self._studio.lost(), self._studio.step_age()
        if lost is not None:
            self._give_up(f"the device is lost: {lost}")
        elif age > self._settings.hang_seconds:
            self._give_up(f"a step has taken {age:.0f} seconds")

    def _note(self, error: Exception | None) -> None:
        if error is not None and not self._away:
            log.warning("Redis is away, drawing goes on: %s", error)
        elif error is None and self._away:
            log.info("Redis is back")
        self._away = error is not None


def wait(wake: SimpleQueue[None], seconds: float) -> None:
    """Until woken, or for so long."""
    try:
        wake.get(timeout=seconds)
    except Empty:
        return
