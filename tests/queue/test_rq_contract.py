"""What we use of RQ's private parts. A failure here after an update says what to read again."""

import inspect

import pytest
import rq
from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import (
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    StartedJobRegistry,
)
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.utils import utcformat, utcparse
from rq.worker import BaseWorker

from server.workers.ledger import NOT_WAITING


def parameters(function):
    return list(inspect.signature(function).parameters)[1:]


BY = ["worker_name", "execution_id", "execution_started_at", "execution_ended_at"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Job._handle_success, ["result_ttl", "pipeline", *BY]),
        (Job._handle_failure, ["exc_string", "pipeline", *BY]),
        (Job.prepare_for_execution, ["worker_name", "pipeline"]),
        (Job.restore, ["raw_data"]),
        (Job.set_status, ["status", "pipeline"]),
        (Job.cleanup, ["ttl", "pipeline", "remove_from_queue"]),
        (Execution.__init__, ["id", "job_id", "connection", "worker_name"]),
        (Execution.delete, ["job", "pipeline"]),
        (Queue.push_job_id, ["job_id", "pipeline", "at_front"]),
        (BaseWorker.increment_total_working_time, ["job_execution_time", "pipeline"]),
        (BaseWorker._set_connection, ["connection"]),
        (BaseWorker.heartbeat, ["timeout", "pipeline"]),
    ],
)
def test_signatures(function, expected):
    assert parameters(function) == expected


def test_the_version_was_read():
    assert rq.__version__.startswith("2.")


def test_key_layout(redis: Redis):
    queue = Queue("demo", connection=redis, serializer=JSONSerializer)
    assert queue.key == "rq:queue:demo"
    assert queue.intermediate_queue_key == "rq:queue:demo:intermediate"
    assert Job.key_for("j") == "rq:job:j"
    assert Execution("e", "j", connection=redis).key == "rq:execution:j:e"
    assert Result.get_key("j") == "rq:results:j"
    registries = {
        StartedJobRegistry: "rq:wip:demo",
        FinishedJobRegistry: "rq:finished:demo",
        FailedJobRegistry: "rq:failed:demo",
        CanceledJobRegistry: "rq:canceled:demo",
    }
    assert {kind: kind(queue=queue).key for kind in registries} == registries
    assert Queue.redis_queues_keys == "rq:queues"


def test_a_job_keeps_its_queue_where_we_move_it(redis: Redis, desk):
    job = desk.job(desk.submit())
    fields = job.to_dict(include_meta=False)
    assert fields["origin"] == "demo"
    assert utcparse(utcformat(job.enqueued_at)) == utcparse(fields["enqueued_at"])
    redis.hset(job.key, "origin", "refiner")
    assert desk.job(job.id).origin == "refiner"


def test_states():
    waiting = {"queued", "deferred", "scheduled", "created"}
    assert {status.value for status in JobStatus} == NOT_WAITING | waiting
    assert JobStatus.STARTED.value == "started"  # the lease script compares with it


def test_rqs_cleanup_leaves_our_executions_alone(redis: Redis, desk, crew):
    worker = crew.thread()
    id = desk.submit()
    while id not in worker.studio.claims:
        pass
    registry = StartedJobRegistry(queue=desk.queue)
    registry.cleanup()
    [(_, score)] = redis.zrange(registry.key, 0, -1, withscores=True)
    assert score > 300 * 24 * 3600 + worker.studio.claims[id].started_at
    assert desk.status(id) == "running"
