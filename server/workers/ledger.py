"""Every change of hands of a job, each one transaction.

queue ──pop──▶ intermediate list ──claim──▶ started ──finish──▶ finished, failed or canceled
  ▲                   │ restore                │ hand_back, rescue  ├──▶ the next stage's queue
  ├───────────────────┴────────────────────────┘                    │ a fault of ours
  └──────────────────────── bring_forward ◀─────────── scheduled ◀──┘

A change WATCHes RQ's job and our record, reads both, decides, and makes RQ's own writes and ours
in one MULTI, so it happens whole or not at all and only if what was read still holds. A claim
leaves its execution id on the job as the fencing token; only its holder may finish. A lost reply
needs no guess: the change is tried again, and token and state say whether it had happened.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain
from typing import Any, TypeVar

from redis.exceptions import WatchError
from rq.job import JobStatus
from rq.worker import BaseWorker

from server.broker import keys, line
from server.errors import Quarantined
from server.forecast import Load
from server.spec import GenerationState
from server.stages import Stage
from server.workers import door
from server.workers.attempts import Attempts
from server.workers.books import Books
from server.workers.entry import Entry, Standing, Told, is_id, read
from server.workers.stage import Claim, Drawn, Ended, Handed, Result, state_after

log = logging.getLogger("darkroom.worker")

T = TypeVar("T")

RETRY_SECONDS = (1.0, 5.0, 25.0)
"""After a fault of ours a generation waits so long; the next fault is its end."""

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
        least_seconds: what a stage takes at least; one whose deadline is closer is not begun.
        load: what the worker has in hand, with this stage too.
        attempts: hears of each change once it is written.
    """

    def __init__(
        self,
        worker: BaseWorker,
        redis: Any,
        *,
        lease_ms: int,
        retention_seconds: int,
        discard: Callable[[Sequence[str]], None],
        least_seconds: Callable[[Stage], float] = lambda stage: 0.0,
        load: Callable[[Stage | None], Load] = lambda more: Load(),
        attempts: Attempts | None = None,
    ) -> None:
        self._redis = redis
        self._discard = discard
        self._least_seconds = least_seconds
        self._load = load
        self._attempts = attempts or Attempts()
        self._books = Books(worker, lease_ms=lease_ms, retention_seconds=retention_seconds)
        self._queue = worker.queues[0]
        self._intermediate = self._queue.intermediate_queue_key
        self._postponed = self._queue.scheduled_job_registry.key
        self._next = redis.register_script(line.NEXT)
        self._offered: Taken | None = None

    def pop(self, timeout_seconds: float) -> str | None:
        """Move the next id in line to the intermediate list, where a death of ours leaves it to be
        found; None when none came in time."""
        names = self._queue.key, self._intermediate
        raw = self._next(keys=names, args=[keys.line(self._queue.name)])
        if raw is None:  # whoever comes now is the next
            raw = self._redis.blmove(*names, timeout_seconds)
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

    def finish(self, claim: Claim, result: Result) -> GenerationState | None:
        """Write how it ended, hand it on to the next stage's queue, or put it back to be tried
        again. Returns the state it is in from now on; None if it is not ours any more and nothing
        was written."""
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

    def bring_forward(self, id: str) -> bool:
        """Put a job whose time has come into the queue; False if somebody else did, or it ended."""
        return self._change(id, self._bring_forward)

    def _change(self, id: str, change: Callable[[Entry], T], *also_watched: str) -> T:
        """Run `change` between WATCH and EXEC, again and again until nobody interferes: two round
        trips, where nobody does."""
        while True:
            try:
                with self._redis.pipeline() as pipe:
                    entry = read(pipe, self._queue, id, *also_watched)
                    answer = change(entry)
                    if pipe.explicit_transaction:
                        pipe.execute()
            except WatchError:  # somebody was faster, or the connection broke: look again
                continue
            # Only now that it is written: a death in between leaves a file that nobody needs,
            # never a stage without what it starts from.
            if entry.leftovers:
                self._discard(tuple(dict.fromkeys(entry.leftovers)))
            self._attempts.saw(entry)
            return answer

    def _claim(self, entry: Entry, room: int, empty: bool) -> Taken | Ended | Refusal:
        offered = self._offered
        if offered and entry.standing(offered.claim.execution) is Standing.HELD:
            return offered  # the reply to our EXEC was lost
        if not self._lift(entry):
            return Refusal.LEFTOVER
        at, job = time.time(), entry.job if entry.readable else None
        found = door.examine(
            job,
            entry.record,
            checkpoint=self._queue.name,
            at=at,
            least_seconds=self._least_seconds,
        )
        if isinstance(found, Ended):
            self._settle(entry, found, None)
            line.leave(entry.pipe, keys.line(self._queue.name), entry.id)
            entry.told.append(
                Told(found.state, found.error.code if found.error else "canceled", at)
            )
            return found
        alone = entry.deaths >= DEATHS_BEFORE_ALONE
        if not empty and (alone or found.spec.num_images > room):
            self._books.push_front(entry)
            return Refusal.NO_ROOM
        execution = self._books.start(entry, at)
        self._books.tell(entry, self._load(found.stage))
        claim = door.claim_of(
            found, execution, at, attempt=entry.attempt, waits_since=entry.waits_since
        )
        self._offered = Taken(claim, alone)
        return self._offered

    def _finish(self, entry: Entry, claim: Claim, result: Result) -> GenerationState | None:
        standing = entry.standing(claim.execution)
        if standing is Standing.LOST:
            return None
        entry.leftovers.extend(chain.from_iterable(claim.past.handed))
        if standing is Standing.OVER:  # the reply to our EXEC was lost
            return state_after(result)
        entry.pipe.multi()
        self._books.tell(entry, self._load(None))
        if standing is Standing.WITHDRAWN or (isinstance(result, Handed) and entry.unwanted):
            entry.leftovers.extend(result.keys if isinstance(result, Handed) else ())
            result = CANCELED
        match result:
            case Drawn():
                self._books.succeed(entry, claim, result)
            case Handed():
                self._books.hand_on(entry, claim, result)
            case Ended():
                return self._end(entry, claim, result)
        return state_after(result)

    def _end(self, entry: Entry, claim: Claim, ended: Ended) -> GenerationState:
        """What a fault of ours has ended is put back, for longer each time, if it is wanted."""
        if ended.fault and entry.unwanted:
            ended = CANCELED
        again = entry.retries < len(RETRY_SECONDS)
        at = time.time() + RETRY_SECONDS[entry.retries] if again else math.inf
        if ended.fault and at < claim.deadline:
            entry.leftovers.clear()  # it starts from them again
            self._books.postpone(entry, claim.execution, at)
            return GenerationState.QUEUED
        self._settle(entry, ended, claim.execution)
        return ended.state

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
            entry.told.append(Told("canceled", "canceled", time.time()))
        if standing is not Standing.HELD:
            self._books.remove_execution(entry, execution)
            return Rescue.CLEARED
        self._books.charge(entry)
        if entry.deaths < DEATHS_BEFORE_ALONE:
            entry.told.append(Told("taken_over", "taken_over", time.time()))
            self._books.requeue(entry, execution)
            return Rescue.REQUEUED
        died = f"it was in flight when {entry.deaths + 1} workers died, the last time alone"
        error = Quarantined(died)
        self._settle(entry, Ended(GenerationState.FAILED, door.failure(error)), execution)
        entry.told.append(Told("failed", error.code, time.time()))
        return Rescue.QUARANTINED

    def _bring_forward(self, entry: Entry) -> bool:
        waits = entry.pipe.zscore(self._postponed, entry.id) is not None
        entry.pipe.multi()
        if waits and entry.status == JobStatus.SCHEDULED.value:
            self._books.bring_forward(entry)
            return True
        entry.pipe.zrem(self._postponed, entry.id)
        return False

    def _restore(self, entry: Entry) -> bool:
        if waiting := self._lift(entry):
            self._books.push_front(entry)
        return waiting

    def _lift(self, entry: Entry) -> bool:
        """Begin a transaction that takes the id out of the intermediate list. False if it is not
        there, so somebody else moved it, or if all it needs is to be taken out."""
        if not entry.popped:
            return False
        entry.pipe.multi()
        entry.pipe.lrem(self._intermediate, 0, entry.id)
        waiting = bool(entry.raw) and entry.status not in NOT_WAITING and not entry.elsewhere
        if not waiting:
            line.leave(entry.pipe, keys.line(self._queue.name), entry.id)
        return waiting
