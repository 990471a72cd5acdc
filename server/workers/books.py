"""RQ's own writes and our record's, added together to a transaction that the ledger executes.

The only file that touches RQ's private parts. What RQ, `rq info` and rq-dashboard show stays true
because every change is written as RQ itself would write it.
"""

from __future__ import annotations

import os
import socket
import time
from datetime import datetime
from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq import Queue, worker_registration
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker import BaseWorker, WorkerStatus

from server.broker import delivery, hands, keys, line
from server.broker.record import total
from server.forecast import UNKNOWN_SECONDS, Load
from server.spec import GenerationState, Progress
from server.workers.entry import Entry
from server.workers.stage import Claim, Drawn, Ended, Handed

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
        line.take(pipe, keys.line(self._queue.name), job.id)
        delivery.started(pipe, job.id, at=at)
        return execution.id

    def tell(self, entry: Entry, load: Load) -> None:
        """What the worker has in hand from this change on, for who is to predict a wait."""
        hands.tell(entry.pipe, self._worker.name, load)

    def requeue(self, entry: Entry, execution: str) -> None:
        """Back to the front of the queue, held by nobody."""
        self.remove_execution(entry, execution)
        entry.pipe.hdel(entry.job.key, keys.HOLDER, "started_at", "worker_name")
        entry.pipe.hset(entry.job.key, "enqueued_at", utcformat(now()))
        self.push_front(entry)
        if entry.open:
            delivery.requeued(entry.pipe, entry.id, steps_before=entry.steps_before)

    def postpone(self, entry: Entry, execution: str, at: float) -> None:
        """Held by nobody until then. RQ shows it as scheduled; its own scheduler is not needed."""
        self.remove_execution(entry, execution)
        pipe, job = entry.pipe, entry.job
        pipe.hdel(job.key, keys.HOLDER, "started_at", "worker_name")
        pipe.hset(job.key, keys.RETRIES, entry.retries + 1)
        job.set_status(JobStatus.SCHEDULED, pipeline=pipe)
        pipe.zadd(self._queue.scheduled_job_registry.key, {entry.id: at})
        if entry.open:
            delivery.requeued(pipe, entry.id, steps_before=entry.steps_before)

    def bring_forward(self, entry: Entry) -> None:
        """What was postponed is due: before all else of its owner, who has no turn for nothing."""
        entry.pipe.zrem(self._queue.scheduled_job_registry.key, entry.id)
        entry.pipe.hset(entry.job.key, "enqueued_at", utcformat(now()))
        self._line_up(entry, self._queue.name, entry.number)
        self.push_front(entry)

    def hand_on(self, entry: Entry, claim: Claim, result: Handed) -> None:
        """Its stage is done: to the next one's queue, before all else of its owner, since it has
        waited already; held by nobody and charged with nothing."""
        pipe, job, at = entry.pipe, entry.job, now()
        self.remove_execution(entry, claim.execution)
        self._count_success(entry, at)
        checkpoint = claim.following[0].checkpoint
        queue = Queue(checkpoint, self._queue.connection, serializer=JSONSerializer)
        pipe.hdel(job.key, keys.HOLDER, keys.DEATHS, keys.RETRIES, "started_at", "worker_name")
        pipe.hset(job.key, mapping={"origin": queue.name, "enqueued_at": utcformat(at)})
        pipe.hset(job.key, keys.HANDED_ON, claim.execution)
        job.set_status(JobStatus.QUEUED, pipeline=pipe)
        pipe.sadd(Queue.redis_queues_keys, queue.key)
        queue.push_job_id(entry.id, pipeline=pipe)
        self._line_up(entry, queue.name, claim.number + 1)
        steps = result.metrics.steps
        delivery.handed_on(
            pipe,
            entry.id,
            at=at.timestamp(),
            checkpoint=checkpoint,
            handed=(*claim.past.handed, result.keys),
            progress=claim.overall(Progress(steps_done=steps, steps_total=steps)),
            stage_metrics=(*claim.past.metrics, result.metrics),
            warnings=(*claim.past.warnings, *result.warnings),
        )

    def _line_up(self, entry: Entry, checkpoint: str, number: int) -> None:
        """With its stage of this number, before all that its owner has in this line."""
        works = entry.works
        line.enter(
            entry.pipe,
            keys.line(checkpoint),
            entry.id,
            owner=entry.owner,
            work=works[number] if number < len(works) else UNKNOWN_SECONDS,
            weight=entry.weight,
            priority=line.FIRST,
        )

    def push_front(self, entry: Entry) -> None:
        """Queued. The write to the job makes the EXEC of a claimer that read it before fail."""
        entry.job.set_status(JobStatus.QUEUED, pipeline=entry.pipe)
        line.back(entry.pipe, self._queue.key, keys.line(self._queue.name), entry.id)

    def charge(self, entry: Entry) -> None:
        """One more death of a worker that had it in flight."""
        entry.pipe.hset(entry.job.key, keys.DEATHS, entry.deaths + 1)

    def remove_execution(self, entry: Entry, execution: str) -> None:
        """Out of RQ's registries, and without a lease."""
        self._execution(entry.job, execution).delete(job=entry.job, pipeline=entry.pipe)
        entry.pipe.delete(keys.lease(execution))

    def succeed(self, entry: Entry, claim: Claim, drawn: Drawn) -> None:
        """Its last stage is done: RQ's state and result, then the record's."""
        self.remove_execution(entry, claim.execution)
        at = self._retire(entry)
        job, pipe = entry.job, entry.pipe
        job._result = {"images": [image.key for image in drawn.images]}
        job._handle_success(self._retention, pipe, **self._by(job, claim.execution))
        job.cleanup(self._retention, pipeline=pipe, remove_from_queue=False)
        self._count_success(entry, at)
        if entry.open:
            self._write_success(entry, claim, drawn)

    def settle(self, entry: Entry, ended: Ended, execution: str | None) -> None:
        """It ended without pictures: RQ's state and result, then the record's. `execution`: None
        if it never ran."""
        if execution:
            self.remove_execution(entry, execution)
        if entry.raw:  # else RQ's job was deleted, and half a job would break RQ's readers
            self._retire(entry)
            if ended.state is GenerationState.CANCELED:
                self._cancel(entry)
            else:
                self._fail(entry, ended, execution)
        if entry.open:
            at, retention = time.time(), self._retention
            delivery.ended(
                entry.pipe,
                entry.id,
                ended.state,
                owner=entry.owner,
                at=at,
                retention=retention,
                error=ended.error,
            )

    def _retire(self, entry: Entry) -> datetime:
        entry.job.ended_at = at = now()
        entry.job.failure_ttl = entry.job.result_ttl = self._retention
        return at

    def _count_success(self, entry: Entry, at: datetime) -> None:
        """In RQ's figures of this worker; of a chain, each of its stages counts."""
        self._worker.increment_successful_job_count(pipeline=entry.pipe)
        if entry.job.started_at:
            self._worker.increment_total_working_time(at - entry.job.started_at, entry.pipe)

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

    def _write_success(self, entry: Entry, claim: Claim, drawn: Drawn) -> None:
        metrics = (*claim.past.metrics, drawn.metrics)
        delivery.succeeded(
            entry.pipe,
            entry.id,
            owner=entry.owner,
            at=time.time(),
            retention=self._retention,
            images=drawn.images,
            metrics=total(metrics),
            stage_metrics=metrics if claim.past.metrics else (),
            warnings=(*claim.past.warnings, *drawn.warnings),
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
