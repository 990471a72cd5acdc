"""What becomes of a generation while nothing goes wrong, and how RQ tells it."""

import time

from rq import Worker
from rq.job import JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from server.broker import control, keys
from server.broker.record import WorkerInfo
from server.errors import DeadlineExceeded
from server.spec import Failure, GenerationState
from server.workers.stage import Ended
from tests.queue.crew import until
from tests.queue.scripted import ScriptedStudio


def test_a_generation_is_claimed_drawn_and_finished(desk, crew):
    worker = crew.thread()
    id = desk.submit(num_images=2)
    until(lambda: id in worker.studio.claims)
    assert desk.status(id) == "running"
    assert desk.job(id).get_status() is JobStatus.STARTED
    assert desk.job(id).worker_name == worker.name
    assert desk.registries()["started"] == [id]

    worker.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")
    record = desk.record(id)
    assert [image.seed for image in record.images] == [1, 2]
    assert record.metrics is not None
    assert desk.states(id) == ["queued", "running", "succeeded"]
    assert desk.events(id)[-1][0] == "done"
    desk.assert_clean()


def test_rq_tells_of_a_success_as_if_it_had_run_it(desk, crew):
    worker = crew.thread(ScriptedStudio(ticks=1))
    id = desk.submit()
    until(lambda: desk.status(id) == "succeeded")
    job = desk.job(id)
    assert job.get_status() is JobStatus.FINISHED
    assert desk.registries()["finished"] == [id]
    [result] = Result.all(job, serializer=JSONSerializer)
    assert result.type is Result.Type.SUCCESSFUL
    assert result.worker_name == worker.name
    assert result.return_value == {"images": [desk.record(id).images[0].key]}
    assert result.execution_id == worker.studio.admitted[0].execution
    assert 0 < desk.redis.ttl(job.key) <= 600
    assert 600 < desk.redis.ttl(keys.generation(id)) <= 1200, "of the tombstone, too"


def test_rq_tells_of_a_failure_in_words(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    error = Failure(code="not_finite", message="the model produced NaN")
    worker.studio.end(id, Ended(GenerationState.FAILED, error))
    until(lambda: desk.status(id) == "failed")
    assert desk.record(id).error == error
    assert desk.registries()["failed"] == [id]
    [result] = Result.all(desk.job(id), serializer=JSONSerializer)
    assert result.exc_string == "not_finite: the model produced NaN"
    assert 0 < desk.redis.ttl(desk.job(id).key) <= 600
    desk.assert_clean()


def test_one_process_holds_as_many_jobs_as_it_has_room_for(desk, crew):
    worker = crew.thread(ScriptedStudio(capacity=3))
    ids = [desk.submit() for _ in range(5)]
    until(lambda: list(worker.studio.claims) == ids[:3])
    assert desk.queue.get_job_ids() == ids[3:]
    worker.studio.end(ids[1])
    until(lambda: ids[3] in worker.studio.claims)


def test_one_that_needs_more_room_waits_at_the_front(desk, crew):
    worker = crew.thread(ScriptedStudio(capacity=4))
    small = [desk.submit(num_images=3)]
    until(lambda: small[0] in worker.studio.claims)
    big, later = desk.submit(num_images=9), desk.submit()
    until(lambda: desk.queue.get_job_ids() == [big, later])
    assert desk.states(big) == ["queued"]
    worker.studio.end(small[0])
    until(lambda: big in worker.studio.claims)
    assert later not in worker.studio.claims


def test_progress_is_told_only_when_there_is_some(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    for steps in (1, 2):
        worker.studio.steps[id] = steps
        until(lambda steps=steps: desk.record(id).progress.steps_done == steps)
    told = [data["steps_done"] for event, data in desk.events(id) if event == "progress"]
    assert told[-2:] == [1, 2]
    assert len(told) <= 3


def test_a_worker_shows_in_rq_and_to_the_gateway(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    [seen] = until(lambda: Worker.all(connection=desk.redis, serializer=JSONSerializer))
    assert (seen.name, seen.queue_names()) == (worker.name, ["demo"])
    assert seen.get_current_job_id() is None
    seen_by_gateway = until(
        lambda: (raw := desk.redis.hgetall(keys.worker(worker.name))) and WorkerInfo.from_hash(raw)
    )
    assert seen_by_gateway.state == "ready"
    until(lambda: desk.redis.hget(keys.worker(worker.name), "in_flight") == b"1")
    worker.stop()
    assert Worker.all(connection=desk.redis, serializer=JSONSerializer) == []
    assert not desk.redis.exists(keys.worker(worker.name))


def test_one_past_its_deadline_expires_undrawn(desk, crew):
    id = desk.submit(created_at=time.time() - 5, deadline_seconds=4.0)
    worker = crew.thread()
    until(lambda: desk.status(id) == "expired")
    assert desk.record(id).error.code == DeadlineExceeded.code
    assert worker.studio.admitted == []
    desk.assert_clean()


def test_canceled_while_queued_is_never_drawn(desk, crew):
    id = desk.submit()
    control.cancel(desk.redis, id, retention=600)
    control.cancel(desk.redis, id, retention=600)
    worker = crew.thread()
    after = desk.submit()
    until(lambda: after in worker.studio.claims)
    assert desk.states(id) == ["queued", "canceled"]
    assert [claim.id for claim in worker.studio.admitted] == [after]
    assert desk.registries()["canceled"] == [id]


def test_cancel_asked_between_pop_and_claim_is_heard(desk, crew):
    id = desk.submit()
    desk.redis.hset(keys.generation(id), "cancel_requested", "1")
    worker = crew.thread()
    until(lambda: desk.status(id) == "canceled")
    assert worker.studio.admitted == []
    assert desk.job(id).get_status() is JobStatus.CANCELED
    desk.assert_clean()


def test_canceled_while_running_stops_within_a_beat(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    control.cancel(desk.redis, id, retention=600)
    control.cancel(desk.redis, id, retention=600)
    until(lambda: desk.status(id) == "canceled", seconds=1)
    assert worker.studio.canceled == [id]
    assert desk.job(id).get_status() is JobStatus.CANCELED
    assert desk.registries()["canceled"] == [id]
    assert desk.states(id) == ["queued", "running", "canceled"]
    desk.assert_clean()


class Deaf(ScriptedStudio):
    """Hears only the third time."""

    heard = 0

    def cancel(self, claim) -> None:
        self.heard += 1
        if self.heard > 2:
            super().cancel(claim)


def test_a_cancel_is_repeated_until_it_is_heard(desk, crew):
    worker = crew.thread(Deaf())
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    control.cancel(desk.redis, id, retention=600)
    until(lambda: desk.status(id) == "canceled", seconds=2)


def test_deleted_while_running_leaves_only_the_tombstone(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    control.remove(desk.redis, desk.record(id), retention=600)
    until(lambda: worker.studio.canceled == [id])
    until(lambda: desk.job(id).get_status() is JobStatus.CANCELED)
    assert list(desk.redis.hgetall(keys.generation(id))) == [b"owner", b"deleted_at"]
    assert not desk.redis.exists(keys.events(id))


def test_canceled_in_rq_while_running_ends_the_generation_too(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    desk.job(id).cancel()
    until(lambda: desk.status(id) == "canceled")
    assert desk.registries()["canceled"] == [id]


def test_deleted_from_rq_while_running_ends_the_generation_too(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    job = desk.job(id)
    job.delete()
    until(lambda: desk.status(id) == "canceled")
    assert not desk.redis.exists(job.key)
    desk.assert_clean()


def test_an_idle_worker_claims_at_once(desk, crew):
    worker = crew.thread(ScriptedStudio(ticks=1, tick_seconds=0.001))
    waits = []
    for _ in range(50):
        began = time.time()
        id = desk.submit()
        until(lambda id=id: desk.status(id) == "succeeded")
        waits.append(desk.record(id).started_at - began)
    median = sorted(waits)[25]
    assert worker.counts["claimed"] == 50
    assert median < 0.02, waits  # a bound for busy machines; 1 ms is usual


def test_lists_of_what_has_expired_are_trimmed(desk, crew):
    expired = {"long-ago": time.time() - 1, "fresh": time.time() + 600}
    names = [f"rq:{name}:demo" for name in ("finished", "failed", "canceled")]
    for name in names:
        desk.redis.zadd(name, expired)
    desk.redis.sadd(keys.workers("demo"), "dead")
    desk.redis.sadd("rq:workers:demo", "rq:worker:dead")
    worker = crew.thread()
    until(lambda: desk.redis.smembers(keys.workers("demo")) == {worker.name.encode()})
    until(lambda: desk.redis.smembers("rq:workers:demo") == {worker.key.encode()})
    assert [desk.redis.zrange(name, 0, -1) for name in names] == [[b"fresh"]] * 3
