"""What a fault of ours has ended is tried again, a few times, and never for what cannot work."""

import pytest
from rq.job import JobStatus
from rq.registry import ScheduledJobRegistry

from server.broker import control, keys
from server.spec import Failure, GenerationState
from server.workers import ledger as ledgers
from server.workers.stage import Ended
from tests.queue.crew import until

FAULT = Ended(
    GenerationState.FAILED, Failure(code="generation_failed", message="a fault"), fault=True
)
REFUSED = Ended(GenerationState.FAILED, Failure(code="invalid_spec", message="no such thing"))


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(ledgers, "RETRY_SECONDS", (0.05, 0.05))


@pytest.fixture
def never(monkeypatch):
    monkeypatch.setattr(ledgers, "RETRY_SECONDS", (30.0,))


def faulty(worker, id):
    until(lambda: id in worker.studio.claims)
    worker.studio.end(id, FAULT)


def test_after_a_fault_it_is_drawn_all_the_same(desk, crew, soon):
    worker = crew.thread()
    id = desk.submit()
    faulty(worker, id)
    until(lambda: id in worker.studio.claims)
    worker.studio.end(id)
    until(lambda: desk.record(id).status == "succeeded")
    assert worker.counts["retried"] == 1
    assert worker.counts["failed"] == 0
    assert desk.job(id).get_status() is JobStatus.FINISHED


def test_faults_without_end_end_it(desk, crew, soon):
    worker = crew.thread()
    id = desk.submit()
    for _ in range(3):
        faulty(worker, id)
    until(lambda: desk.record(id).status == "failed")
    assert desk.record(id).error.message == "a fault"
    assert worker.counts["retried"] == 2


def test_what_is_wrong_with_a_request_is_not_tried_again(desk, crew, soon):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    worker.studio.end(id, REFUSED)
    until(lambda: desk.record(id).status == "failed")
    assert worker.counts["retried"] == 0


def test_while_it_waits_to_be_tried_again_it_is_queued_and_rq_shows_when(desk, crew, never):
    worker = crew.thread()
    id = desk.submit()
    faulty(worker, id)
    until(lambda: desk.record(id).status == "queued")
    assert desk.job(id).get_status() is JobStatus.SCHEDULED
    assert ScheduledJobRegistry(queue=desk.queues["demo"]).get_job_ids() == [id]
    assert not desk.redis.hexists(f"rq:job:{id}", keys.HOLDER)


def test_it_can_be_canceled_while_it_waits(desk, crew, never):
    worker = crew.thread()
    id = desk.submit()
    faulty(worker, id)
    until(lambda: desk.record(id).status == "queued")
    control.cancel(desk.redis, id, retention=600)
    assert desk.record(id).status == "canceled"
    assert ScheduledJobRegistry(queue=desk.queues["demo"]).get_job_ids() == []
    assert desk.job(id).get_status() is JobStatus.CANCELED


def test_what_was_asked_to_stop_and_then_has_a_fault_is_canceled(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    worker.studio.cancel = lambda claim: None  # it has its fault before it hears of it
    control.cancel(desk.redis, id, retention=600)
    worker.studio.end(id, FAULT)
    until(lambda: desk.record(id).terminal)
    assert desk.states(id) == ["queued", "running", "canceled"]
    assert desk.record(id).error is None
    desk.assert_clean()


def test_another_worker_may_try_it(desk, crew, soon):
    first = crew.thread()
    id = desk.submit()
    until(lambda: id in first.studio.claims)
    second = crew.thread()
    first.request_stop()
    first.studio.end(id, FAULT)
    until(lambda: id in second.studio.claims)


def test_a_deadline_before_the_next_try_ends_it_now(desk, crew, never):
    worker = crew.thread()
    id = desk.submit(deadline_seconds=20)
    faulty(worker, id)
    until(lambda: desk.record(id).status == "failed")
