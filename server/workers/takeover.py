"""Rescue: what dead workers held goes back to the queue, whoever notices first.

Every worker of a queue looks twice a second. It does not matter if a look is wrong or late: the
ledger's transactions decide, and an owner that was robbed by mistake finds its token gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from rq import Queue, worker_registration
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry

from server.broker import keys
from server.errors import Quarantined
from server.spec import AnySpec
from server.workers.ledger import Ledger, Rescue
from server.workers.link import AWAY
from server.workers.lists import Lists

log = logging.getLogger("darkroom.worker")

TRIM_SECONDS = 60.0
LOOKS_PER_LEASE = 6


class Observer(Protocol):
    """Told what happens to claims, for metrics. Calls come from several threads."""

    def claimed(self) -> None:
        """A generation was claimed."""

    def finished(self, state: str, spec: AnySpec | None = None, code: str = "") -> None:
        """A generation ended here, in this terminal state. None: before it was admitted. `code`: of
        the error that it ended with."""

    def lost(self) -> None:
        """A claim turned out to belong to somebody else."""

    def taken_over(self) -> None:
        """A generation of a dead worker was put back in the queue."""

    def retried(self) -> None:
        """A generation that a fault of ours had ended was put back in the queue."""

    def quarantined(self) -> None:
        """A generation was failed because workers keep dying with it."""

    def beat(self, seconds: float) -> None:
        """Redis has answered all that a beat asks after so long."""


class Takeover:
    """One worker's look at the others. `mine` names the executions it holds itself."""

    def __init__(
        self,
        ledger: Ledger,
        lists: Lists,
        redis: Any,
        lease_seconds: float,
        mine: Callable[[], Collection[str]],
        observer: Observer,
    ) -> None:
        self._ledger = ledger
        self._lists = lists
        self._redis = redis
        self._lease_seconds = lease_seconds
        self._mine = mine
        self._observer = observer
        self._run_id = ""
        self._reached = time.monotonic()
        self._patient_until = 0.0
        self._first_seen: dict[str, float] = {}

    def run(self, queue: Queue, gone: threading.Event) -> None:
        """Look, and tidy up now and then, until the worker has gone."""
        trimmed_at = float("-inf")
        often = self._lease_seconds / LOOKS_PER_LEASE
        pause = 0.0
        while not gone.wait(pause):
            try:
                self.look()
                if time.monotonic() - trimmed_at > TRIM_SECONDS:
                    trim(queue, self._redis)
                    trimmed_at = time.monotonic()
                pause = often
            except AWAY:
                pause = often / 5  # soon: a passing error must not look like an outage

    def look(self) -> None:
        """Rescue what is due now.

        Raises:
            RedisError: part of the look did not happen; look again soon, or it counts as an outage.
        """
        self._notice_restart()
        self._restore_stranded()
        self._bring_forward()
        unleased = self._lists.unleased()
        reached = self._reach()
        if time.monotonic() >= self._patient_until:
            self._rescue(unleased)
        self._reached = reached

    def _notice_restart(self) -> None:
        server = self._redis.info("server")
        if self._run_id not in ("", server["run_id"]):
            self._be_patient()
        elif not self._run_id:
            self._be_patient(since=server["uptime_in_seconds"])
        self._run_id = server["run_id"]

    def _reach(self) -> float:
        """Now, if Redis takes writes; while it does not, owners cannot renew, so that is an outage
        too. A passing error is none: leases outlive a gap this short, and rescue must not starve
        on a bad network."""
        self._redis.set(keys.lease("nobody"), "", xx=True)  # refused as a lease is; writes nothing
        now = time.monotonic()
        if now - self._reached > 0.75 * self._lease_seconds:
            self._be_patient()
        return now

    def _be_patient(self, since: float = 0.0) -> None:
        """Since an outage ended, so many seconds ago, owners get two leases of time to renew."""
        self._patient_until = time.monotonic() + 2 * self._lease_seconds - since

    def _restore_stranded(self) -> None:
        """Ids pass through the intermediate list in a millisecond; one that stays was left."""
        now = time.monotonic()
        stranded = self._lists.stranded()
        self._first_seen = {id: self._first_seen.get(id, now) for id in stranded}
        for id, since in self._first_seen.items():
            if now - since >= self._lease_seconds and self._ledger.restore(id):
                log.warning("restored to the queue: a claim never finished", extra=_about(id))
                self._observer.taken_over()

    def _bring_forward(self) -> None:
        for id in self._lists.due():
            if self._ledger.bring_forward(id):
                log.info("tried again after a fault", extra=_about(id))
                self._observer.retried()

    def _rescue(self, unleased: Iterable[tuple[str, str]]) -> None:
        for id, execution in unleased:
            if execution not in self._mine():
                self._report(id, self._ledger.rescue(id, execution))

    def _report(self, id: str, rescue: Rescue) -> None:
        if rescue is Rescue.REQUEUED:
            log.warning("taken over: its worker died or went silent", extra=_about(id))
            self._observer.taken_over()
        elif rescue is Rescue.QUARANTINED:
            log.error("quarantined: workers keep dying with it", extra=_about(id))
            self._observer.quarantined()
            self._observer.finished("failed", code=Quarantined.code)


def trim(queue: Queue, redis: Any) -> None:
    """Forget what has expired from RQ's lists and ours. RQ's own cleanup would also fail jobs that
    only changed workers, and never trims canceled ones."""
    FinishedJobRegistry(queue=queue).cleanup()
    FailedJobRegistry(queue=queue).cleanup()
    redis.zremrangebyscore(CanceledJobRegistry(queue=queue).key, 0, time.time())
    worker_registration.clean_worker_registry(queue)
    for name in redis.smembers(keys.workers(queue.name)):
        if not redis.exists(keys.worker(name.decode())):
            redis.srem(keys.workers(queue.name), name)


def _about(id: str) -> dict[str, str]:
    return {"generation": id}
