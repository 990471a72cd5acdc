"""RQ's own writes and our record's, added together to a transaction that the ledger executes.

The only file that touches RQ's private parts. What RQ, `rq info` and rq-dashboard show stays true
because every change is written as RQ itself would write it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ResponseError
from rq import Queue, worker_registration
from rq.executions import Execution
from rq.job import Job, JobStatus, validate_job_id
from rq.registry import CanceledJobRegistry
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from server.broker import delivery, keys
from server.spec import TERMINAL, GenerationState
from server.workers.stage import Drawn, Ended, Result

EXECUTION_TTL_SECONDS = 365 * 24 * 3600
"""RQ's cleanup fails executions older than this; long before, a lease decides."""

RQ_TTL_SECONDS = 15


class RqWorker(BaseWorker):
    """A worker as RQ registers, counts and shows it. `name` must be unique."""

    def __init__(self, checkpoint: str, redis: Redis, name: str) -> None:
        super().__init__(
            checkpoint,
            name=name,
            connection=redis,
            serializer=JSONSerializer,
            log_job_description=False,
            prepare_for_work=False,  # would ask Redis at once; it may not be there yet
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()

    def appear(self, pipe: Pipeline, busy: bool) -> None:
        """In `rq info`. All of it every time, so it comes back even after a FLUSHALL."""
        self.heartbeat(RQ_TTL_SECONDS, pipeline=pipe)
        pipe.hset(self.key, mapping=self.serialize())
        self.set_state(WorkerStatus.BUSY if busy else WorkerStatus.IDLE, pipeline=pipe)
        worker_registration.register(self, pipe)

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ would stretch the socket's timeout to seven minutes; ours stays as it is."""
        return connection


class Standing(Enum):
    """How an execution stands to its job."""

    HELD = auto()
    WITHDRAWN = auto()
    """RQ's job was canceled or deleted from outside while our record says running."""
    OVER = auto()
    """It has ended, under this execution."""
    LOST = auto()
    """Another execution holds the job, or none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A job and its record as read under WATCH. Writes follow `pipe.multi()`."""

    pipe: Pipeline
    id: str
    job: Job
    """As blank as new where there is no job, or RQ cannot read it."""
    readable: bool
    raw: Mapping[bytes, bytes]
    record: Mapping[bytes, bytes]
    """Empty where there is no record, or only the tombstone of a deleted one."""

    @property
    def status(self) -> str:
        """RQ's state of the job; empty when there is no job."""
        return self.raw.get(b"status", b"").decode(errors="replace")

    @property
    def deaths(self) -> int:
        """In how many deaths of workers it was in flight."""
        count = self.raw.get(keys.DEATHS.encode(), b"")
        return int(count) if count.isdigit() else 0

    @property
    def open(self) -> bool:
        """Whether there is a record that has not ended."""
        return bool(self.record) and self.record[b"status"].decode(errors="replace") not in TERMINAL

    def standing(self, execution: str) -> Standing:
        """How `execution` stands to this job."""
        if self.raw and self.raw.get(keys.HOLDER.encode(), b"") != execution.encode():
            return Standing.LOST
        if self.status == JobStatus.STARTED.value:
            return Standing.HELD
        return Standing.WITHDRAWN if self.open else Standing.OVER


def job_and_execution(member: bytes) -> tuple[str, str] | None:
    """What a member of RQ's registry of started jobs names; None if it is no such thing."""
    id, _, execution = member.partition(b":")
    if not (is_id(id) and is_id(execution)):
        return None
    return id.decode(), execution.decode()


def is_id(raw: bytes) -> bool:
    """Whether RQ takes this for a job's id."""
    try:
        validate_job_id(raw.decode())
    except ValueError:
        return False
    return True


def read(pipe: Pipeline, queue: Queue, id: str) -> Entry:
    """The job and its record, as they are now."""
    raw, record = _hash(pipe, Job.key_for(id)), _hash(pipe, keys.generation(id))
    job = Job(id, connection=queue.connection, serializer=JSONSerializer)
    try:
        job.restore(raw)
        readable = True
    except Exception:  # whatever a forged hash makes RQ raise must not stop the worker
        job.data, readable = raw.get(b"data", b""), False
    job.origin = queue.name
    return Entry(pipe, id, job, readable, raw, record if b"status" in record else {})


def _hash(pipe: Pipeline, key: str) -> Mapping[bytes, bytes]:
    """The hash at `key`; empty where there is none, or something that is no hash."""
    try:
        found: Any = pipe.hgetall(key)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return {}
    return found  # type: ignore[no-any-return]


class Books:
    """Writes in the name of one worker. Every method only adds to the entry's transaction."""

    def __init__(self, worker: BaseWorker, *, lease_ms: int, retention_seconds: int) -> None:
        self._worker = worker
        self._queue: Queue = worker.queues[0]
        self._lease_ms = lease_ms
        self._retention = retention_seconds

    def start(self, entry: Entry, at: float) -> str:
        """Claimed: a new execution holds the job. Returns its id, the fencing token."""
        pipe, job, worker = entry.pipe, entry.job, self._worker.name
        execution = Execution.create(job, EXECUTION_TTL_SECONDS, pipe, worker_name=worker)
        job.prepare_for_execution(worker, pipeline=pipe)
        pipe.hset(job.key, keys.HOLDER, execution.id)
        pipe.set(keys.lease(execution.id), worker, px=self._lease_ms)
        delivery.started(pipe, job.id, at=at)
        return execution.id

    def requeue(self, entry: Entry, execution: str) -> None:
        """Back to the front of the queue, held by nobody."""
        self.remove_execution(entry, execution)
        entry.pipe.hdel(entry.job.key, keys.HOLDER, "started_at", "worker_name")
        self.push_front(entry)
        if entry.open:
            delivery.requeued(entry.pipe, entry.id)

    def push_front(self, entry: Entry) -> None:
        """Queued. The write to the job makes the EXEC of a claimer that read it before fail."""
        entry.job.set_status(JobStatus.QUEUED, pipeline=entry.pipe)
        self._queue.push_job_id(entry.id, pipeline=entry.pipe, at_front=True)

    def charge(self, entry: Entry) -> None:
        """One more death of a worker that had it in flight."""
        entry.pipe.hset(entry.job.key, keys.DEATHS, entry.deaths + 1)

    def remove_execution(self, entry: Entry, execution: str) -> None:
        """Out of RQ's registries, and without a lease."""
        self._execution(entry.job, execution).delete(job=entry.job, pipeline=entry.pipe)
        entry.pipe.delete(keys.lease(execution))

    def settle(self, entry: Entry, result: Result, execution: str | None) -> None:
        """It ended: RQ's state and result, then the record's. `execution`: None if it never ran."""
        if execution:
            self.remove_execution(entry, execution)
        if entry.raw:  # else RQ's job was deleted, and half a job would break RQ's readers
            self._settle_job(entry, result, execution)
        if entry.open:
            self._write_record(entry, result)

    def _settle_job(self, entry: Entry, result: Result, execution: str | None) -> None:
        entry.job.ended_at = now()
        entry.job.failure_ttl = entry.job.result_ttl = self._retention
        if isinstance(result, Drawn):
            self._succeed(entry, result, execution)
        elif result.state is GenerationState.CANCELED:
            self._cancel(entry)
        else:
            self._fail(entry, result, execution)

    def _succeed(self, entry: Entry, drawn: Drawn, execution: str | None) -> None:
        job, pipe = entry.job, entry.pipe
        job._result = {"images": [image.key for image in drawn.images]}
        job._handle_success(self._retention, pipe, **self._by(job, execution))
        job.cleanup(self._retention, pipeline=pipe, remove_from_queue=False)
        self._worker.increment_successful_job_count(pipeline=pipe)
        if job.started_at and job.ended_at:
            self._worker.increment_total_working_time(job.ended_at - job.started_at, pipe)

    def _fail(self, entry: Entry, ended: Ended, execution: str | None) -> None:
        job, pipe = entry.job, entry.pipe
        reason = f"{ended.error.code}: {ended.error.message}" if ended.error else ended.state.value
        job.set_status(JobStatus.FAILED, pipeline=pipe)
        job._handle_failure(reason, pipe, **self._by(job, execution))
        self._worker.increment_failed_job_count(pipeline=pipe)

    def _cancel(self, entry: Entry) -> None:
        job, pipe = entry.job, entry.pipe
        job.set_status(JobStatus.CANCELED, pipeline=pipe)
        CanceledJobRegistry(queue=self._queue).add(job, ttl=self._retention, pipeline=pipe)
        job.cleanup(self._retention, pipeline=pipe, remove_from_queue=False)

    def _write_record(self, entry: Entry, result: Result) -> None:
        at, retention = time.time(), self._retention
        if isinstance(result, Ended):
            delivery.ended(
                entry.pipe, entry.id, result.state, at=at, retention=retention, error=result.error
            )
            return
        delivery.succeeded(
            entry.pipe,
            entry.id,
            at=at,
            retention=retention,
            images=result.images,
            metrics=result.metrics,
            warnings=result.warnings,
        )

    def _by(self, job: Job, execution: str | None) -> dict[str, Any]:
        return {
            "worker_name": self._worker.name,
            "execution_id": execution,
            "execution_started_at": job.started_at,
            "execution_ended_at": job.ended_at,
        }

    def _execution(self, job: Job, id: str) -> Execution:
        return Execution(id, job.id, connection=self._queue.connection)
