"""Every change of hands of a job, each one transaction.

queue ──pop──▶ intermediate list ──claim──▶ started ──finish──▶ finished, failed or canceled
  ▲                   │ restore                │ hand_back, rescue  └──▶ the next stage's queue
  └───────────────────┴────────────────────────┘

A change WATCHes RQ's job and our record, reads both, decides, and makes RQ's own writes and ours
in one MULTI, so it happens whole or not at all and only if what was read still holds. A claim
leaves its execution id on the job as the fencing token; only its holder may finish. A lost reply
needs no guess: the change is tried again, and token and state say whether it had happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain
from typing import Any, TypeVar

from redis.exceptions import WatchError
from rq.job import Job
from rq.worker import BaseWorker

from server.broker import keys
from server.broker.record import Generation
from server.errors import Quarantined
from server.spec import GenerationState
from server.stages import stages
from server.workers import door
from server.workers.books import Books
from server.workers.entry import Entry, Standing, is_id, job_and_execution, read
from server.workers.stage import Claim, Drawn, Ended, Handed, Past, Result

log = logging.getLogger("darkroom.worker")

T = TypeVar("T")

DEATHS_BEFORE_ALONE = 2
"""In flight in so many deaths, a job is run alone; in one more, it is quarantined."""

NOT_WAITING = frozenset({"started", "finished", "failed", "canceled", "stopped"})
"""RQ's states of a job whose id in a list is a leftover."""

CANCELED = Ended(GenerationState.CANCELED)


class Refusal(Enum):
    """Why a popped job was not claimed."""

    LEFTOVER = auto()
    """Somebody else has it, or it has ended, or there is no such job."""
    NO_ROOM = auto()
    """It needs more room, or a worker of its own; it is at the front of the queue again."""


class Rescue(Enum):
    """What became of an execution that had no lease."""

    ALIVE = auto()
    CLEARED = auto()
    REQUEUED = auto()
    QUARANTINED = auto()


@dataclass(frozen=True, slots=True)
class Taken:
    """A claim, and whether nothing else may run beside it."""

    claim: Claim
    alone: bool


class Ledger:
    """The queue of one checkpoint, as one worker changes it.

    Args:
        redis: must not repeat commands.
        discard: removes from the image store what nobody needs after a change.
    """

    def __init__(
        self,
        worker: BaseWorker,
        redis: Any,
        *,
        lease_ms: int,
        retention_seconds: int,
        discard: Callable[[Sequence[str]], None],
    ) -> None:
        self._redis = redis
        self._discard = discard
        self._books = Books(worker, lease_ms=lease_ms, retention_seconds=retention_seconds)
        self._queue = worker.queues[0]
        self._intermediate = self._queue.intermediate_queue_key
        self._offered: Taken | None = None

    def pop(self, timeout_seconds: float) -> str | None:
        """Move the next id to the intermediate list, where a death of ours leaves it to be found;
        None when none came in time."""
        raw = self._redis.blmove(self._queue.key, self._intermediate, timeout_seconds)
        if raw is None:
            return None
        if not is_id(raw):
            log.error("dropped from the queue what is no job id: %.80r", raw)
            self._redis.lrem(self._intermediate, 0, raw)
            return None
        return str(raw.decode())

    def claim(self, id: str, *, room: int, empty: bool) -> Taken | Ended | Refusal:
        """Make a popped job ours, or end it here if it is malformed, overdue or canceled.
        `empty`: nothing runs here, so whatever it needs, it can have."""
        return self._change(id, lambda entry: self._claim(entry, room, empty))

    def finish(self, claim: Claim, result: Result) -> bool:
        """Write how it ended, or hand it on to the next stage's queue; False if it is not ours any
        more and nothing was written."""
        return self._change(claim.id, lambda entry: self._finish(entry, claim, result))

    def hand_back(self, claim: Claim) -> bool:
        """Return a claim to the front of the queue, not counted as a death; False if not ours."""
        return self._change(claim.id, lambda entry: self._hand_back(entry, claim.execution))

    def rescue(self, id: str, execution: str) -> Rescue:
        """Take an execution without a lease from its dead worker; of several, one rescuer wins."""
        lease = keys.lease(execution)
        return self._change(id, lambda entry: self._rescue(entry, execution), lease)

    def restore(self, id: str) -> bool:
        """Return an id from the intermediate list to the front of the queue; False if it was not
        there or only a leftover, which is dropped."""
        return self._change(id, self._restore)

    def stranded(self) -> list[str]:
        """The ids in the intermediate list: being claimed, or left there by a death."""
        found = self._redis.lrange(self._intermediate, 0, -1)
        return [raw.decode() for raw in found if is_id(raw)]

    def unleased(self) -> list[tuple[str, str]]:
        """Job and execution of everything that is started but has no lease, newest first."""
        # Not by RQ's reader: it cleans up first, which loses jobs, and trips over strange members.
        members = self._redis.zrange(self._queue.started_job_registry.key, 0, -1, desc=True)
        started = [pair for member in members if (pair := job_and_execution(member))]
        with self._redis.pipeline(transaction=False) as pipe:
            for _, execution in started:
                pipe.exists(keys.lease(execution))
            leased = pipe.execute()
        return [
            (id, execution)
            for (id, execution), alive in zip(started, leased, strict=True)
            if not alive
        ]

    def _change(self, id: str, change: Callable[[Entry], T], *also_watched: str) -> T:
        """Run `change` between WATCH and EXEC, again and again until nobody interferes."""
        while True:
            try:
                with self._redis.pipeline() as pipe:
                    pipe.watch(Job.key_for(id), keys.generation(id), *also_watched)
                    entry = read(pipe, self._queue, id)
                    answer = change(entry)
                    if pipe.explicit_transaction:
                        pipe.execute()
            except WatchError:  # somebody was faster, or the connection broke: look again
                continue
            # Only now that it is written: a death in between leaves a file that nobody needs,
            # never a stage without what it starts from.
            if entry.leftovers:
                self._discard(tuple(dict.fromkeys(entry.leftovers)))
            return answer

    def _claim(self, entry: Entry, room: int, empty: bool) -> Taken | Ended | Refusal:
        offered = self._offered
        if offered and entry.standing(offered.claim.execution) is Standing.HELD:
            return offered  # the reply to our EXEC was lost
        if not self._lift(entry):
            return Refusal.LEFTOVER
        at, job = time.time(), entry.job if entry.readable else None
        found = door.examine(job, entry.record, checkpoint=self._queue.name, at=at)
        if isinstance(found, Ended):
            self._settle(entry, found, None)
            return found
        alone = entry.deaths >= DEATHS_BEFORE_ALONE
        if not empty and (alone or found.spec.num_images > room):
            self._books.push_front(entry)
            return Refusal.NO_ROOM
        execution = self._books.start(entry, at)
        self._offered = Taken(_claim_of(found, execution, at), alone)
        return self._offered

    def _finish(self, entry: Entry, claim: Claim, result: Result) -> bool:
        standing = entry.standing(claim.execution)
        if standing is Standing.LOST:
            return False
        entry.leftovers.extend(chain.from_iterable(claim.past.handed))
        if standing is Standing.OVER:
            return True
        entry.pipe.multi()
        if standing is Standing.WITHDRAWN or (isinstance(result, Handed) and entry.unwanted):
            entry.leftovers.extend(result.keys if isinstance(result, Handed) else ())
            result = CANCELED
        match result:
            case Drawn():
                self._books.succeed(entry, claim, result)
            case Handed():
                self._books.hand_on(entry, claim, result)
            case Ended():
                self._settle(entry, result, claim.execution)
        return True

    def _settle(self, entry: Entry, ended: Ended, execution: str | None) -> None:
        self._books.settle(entry, ended, execution)
        entry.leftovers.extend(entry.handed)

    def _hand_back(self, entry: Entry, execution: str) -> bool:
        if entry.standing(execution) is not Standing.HELD:
            return False
        entry.pipe.multi()
        self._books.requeue(entry, execution)
        return True

    def _rescue(self, entry: Entry, execution: str) -> Rescue:
        if entry.pipe.exists(keys.lease(execution)):
            return Rescue.ALIVE
        entry.pipe.multi()
        standing = entry.standing(execution)
        if standing is Standing.WITHDRAWN:
            self._settle(entry, CANCELED, execution)
        if standing is not Standing.HELD:
            self._books.remove_execution(entry, execution)
            return Rescue.CLEARED
        self._books.charge(entry)
        if entry.deaths < DEATHS_BEFORE_ALONE:
            self._books.requeue(entry, execution)
            return Rescue.REQUEUED
        self._settle(entry, _quarantined(entry.deaths + 1), execution)
        return Rescue.QUARANTINED

    def _restore(self, entry: Entry) -> bool:
        waiting = self._lift(entry)
        if waiting:
            self._books.push_front(entry)
        return waiting

    def _lift(self, entry: Entry) -> bool:
        """Begin a transaction that takes the id out of the intermediate list. False if it is not
        there, so somebody else moved it, or if all it needs is to be taken out."""
        if entry.pipe.lpos(self._intermediate, entry.id) is None:
            return False
        entry.pipe.multi()
        entry.pipe.lrem(self._intermediate, 0, entry.id)
        return bool(entry.raw) and entry.status not in NOT_WAITING and not entry.elsewhere


def _claim_of(found: Generation, execution: str, at: float) -> Claim:
    number, drawn = found.stage_number, stages(found.spec)
    return Claim(
        id=found.id,
        execution=execution,
        whole=found.spec,
        stage=drawn[number],
        created_at=found.created_at,
        started_at=at,
        queued_at=found.queued_at or found.created_at,
        following=drawn[number + 1 :],
        past=Past(found.handed, found.stage_metrics, found.warnings),
    )


def _quarantined(deaths: int) -> Ended:
    error = Quarantined(f"it was in flight when {deaths} workers died, the last time alone")
    return Ended(GenerationState.FAILED, door.failure(error))
