"""Two hands on one job: each change paused between reading and EXEC while another happens."""

from collections.abc import Iterator

import pytest
from redis import Redis
from rq.job import JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from server.broker import control, keys
from server.spec import Failure, GenerationState, Progress
from server.workers.leases import Leases
from server.workers.ledger import DEATHS_BEFORE_ALONE, Ledger, Refusal, Rescue, Taken
from server.workers.link import connect
from server.workers.stage import Ended
from tests.queue.crew import ThreadWorker, short
from tests.queue.faults import Gate, GatedRedis
from tests.queue.scripted import ScriptedStudio, drawn


def a_ledger(server, redis: Redis) -> Ledger:
    return ThreadWorker(short(server.url), ScriptedStudio(), redis)._ledger


@pytest.fixture
def slow(server) -> Iterator[GatedRedis]:
    with GatedRedis.from_url(server.url) as redis:
        yield redis


@pytest.fixture
def mine(server, slow) -> Ledger:
    """The ledger whose changes can be paused."""
    return a_ledger(server, slow)


@pytest.fixture
def theirs(server, redis) -> Ledger:
    return a_ledger(server, redis)


@pytest.fixture
def unlucky(server, proxy) -> Iterator[Ledger]:
    """The ledger that does not hear the reply to an EXEC when `proxy.swallow` is set."""
    with connect(proxy.url) as redis:
        yield a_ledger(server, redis)


def claim(ledger: Ledger, id: str) -> Taken | Ended | Refusal:
    return ledger.claim(id, room=4, empty=True)


def taken(ledger: Ledger, desk):
    """A fresh claim of this ledger."""
    desk.submit()
    got = claim(ledger, ledger.pop(1.0))
    assert isinstance(got, Taken)
    return got.claim


def end_lease(desk, claimed) -> None:
    assert desk.redis.delete(keys.lease(claimed.execution)) == 1


def test_of_two_claimers_one_wins(desk, mine, theirs, slow):
    desk.submit()
    id = mine.pop(1.0)
    gate = Gate(slow, lambda: claim(mine, id))
    assert isinstance(claim(theirs, id), Taken)
    assert gate.open() is Refusal.LEFTOVER
    assert desk.states(id) == ["queued", "running"]


def test_what_a_worker_holds_is_told_with_each_claim_and_each_end(desk, mine):
    worker = mine._books._worker.name
    told = lambda: desk.redis.hmget(keys.worker(worker), "rows", "held_seconds", "work_seconds")  # noqa: E731
    claimed = taken(mine, desk)
    assert told() == [None] * 3, "it was never there, or is there no more"
    desk.redis.hset(keys.worker(worker), "state", "ready")
    another = taken(mine, desk)
    assert [float(each) for each in told()] == [2, 1, 1]
    desk.redis.hset(keys.worker(worker), "rows", 8)
    mine.finish(another, drawn(another))
    assert [float(each) for each in told()] == [0, 0, 0]
    mine.finish(claimed, drawn(claimed))


def test_a_slow_claimer_loses_to_a_rescuer_of_the_intermediate_list(desk, mine, theirs, slow):
    desk.submit()
    id = mine.pop(1.0)
    gate = Gate(slow, lambda: claim(mine, id))
    assert theirs.restore(id)
    assert gate.open() is Refusal.LEFTOVER
    assert desk.queue.get_job_ids() == [id]
    assert desk.job(id).get_status() is JobStatus.QUEUED


def test_a_slow_rescuer_of_the_intermediate_list_loses_to_the_claimer(desk, mine, theirs, slow):
    desk.submit()
    id = theirs.pop(1.0)
    gate = Gate(slow, lambda: mine.restore(id))
    assert isinstance(claim(theirs, id), Taken)
    assert gate.open() is False
    assert desk.queue.get_job_ids() == []
    assert desk.status(id) == "running"


def test_a_cancel_comes_before_a_slow_claim(desk, mine, slow):
    desk.submit()
    id = mine.pop(1.0)
    gate = Gate(slow, lambda: claim(mine, id))
    control.cancel(desk.redis, id, retention=600)
    assert gate.open() is Refusal.LEFTOVER
    assert desk.states(id) == ["queued", "canceled"]
    desk.assert_clean()


def test_what_is_canceled_in_the_queue_leaves_nothing_in_any_list(desk):
    control.cancel(desk.redis, desk.submit(), retention=600)
    desk.assert_clean()


def test_a_slow_cancel_loses_to_the_claimer_and_asks_it_to_stop(desk, theirs, slow):
    id = desk.submit()
    assert theirs.pop(1.0) == id
    gate = Gate(slow, lambda: control.cancel(slow, id, retention=600))
    assert isinstance(claim(theirs, id), Taken)
    assert gate.open() is None
    assert (desk.status(id), desk.record(id).cancel_requested) == ("running", True)


def test_looking_at_what_was_overdue_cancels_no_claim(desk, mine):
    seen = desk.record(desk.submit())
    assert isinstance(claim(mine, mine.pop(1.0)), Taken)
    overdue = seen.model_copy(update={"created_at": 0.0})
    assert control.expire(desk.redis, overdue, retention=600) is None
    assert (desk.status(seen.id), desk.record(seen.id).cancel_requested) == ("running", False)


def test_a_slow_finisher_loses_to_a_rescuer(desk, mine, theirs, slow):
    claimed = taken(mine, desk)
    gate = Gate(slow, lambda: mine.finish(claimed, drawn(claimed)))
    end_lease(desk, claimed)
    assert theirs.rescue(claimed.id, claimed.execution) is Rescue.REQUEUED
    assert gate.open() is None
    assert desk.states(claimed.id) == ["queued", "running", "queued"]
    assert desk.record(claimed.id).images == ()


def test_a_slow_rescuer_loses_to_the_finisher(desk, mine, theirs, slow):
    claimed = taken(theirs, desk)
    end_lease(desk, claimed)
    gate = Gate(slow, lambda: mine.rescue(claimed.id, claimed.execution))
    assert theirs.finish(claimed, drawn(claimed))
    assert gate.open() is Rescue.CLEARED
    assert desk.states(claimed.id) == ["queued", "running", "succeeded"]
    desk.assert_clean()


def test_a_slow_rescuer_loses_to_an_owner_that_renews(desk, mine, theirs, slow):
    claimed = taken(theirs, desk)
    end_lease(desk, claimed)
    gate = Gate(slow, lambda: mine.rescue(claimed.id, claimed.execution))
    leases = Leases(desk.redis, "owner", lease_ms=1000)
    with desk.redis.pipeline() as pipe:
        leases.renew(pipe, [claimed], {})
        assert pipe.execute() == [[b"held"]]
    assert gate.open() is Rescue.ALIVE
    assert desk.status(claimed.id) == "running"


def test_of_two_rescuers_one_wins_and_one_death_is_counted(desk, mine, theirs, slow):
    claimed = taken(theirs, desk)
    end_lease(desk, claimed)
    gate = Gate(slow, lambda: mine.rescue(claimed.id, claimed.execution))
    assert theirs.rescue(claimed.id, claimed.execution) is Rescue.REQUEUED
    assert gate.open() is Rescue.CLEARED
    assert desk.queue.get_job_ids() == [claimed.id]
    assert desk.redis.hget(desk.job(claimed.id).key, keys.DEATHS) == b"1"


def test_what_is_handed_back_is_not_charged_and_its_finisher_loses(desk, mine, theirs, slow):
    claimed = taken(mine, desk)
    gate = Gate(slow, lambda: mine.finish(claimed, drawn(claimed)))
    assert mine.hand_back(claimed)
    assert gate.open() is None
    assert desk.queue.get_job_ids() == [claimed.id]
    assert desk.redis.hget(desk.job(claimed.id).key, keys.DEATHS) is None


def test_a_zombie_cannot_finish_what_another_has_claimed(desk, mine, theirs):
    stale = taken(mine, desk)
    end_lease(desk, stale)
    theirs.rescue(stale.id, stale.execution)
    fresh = claim(theirs, theirs.pop(1.0)).claim
    assert not mine.finish(stale, drawn(stale))
    assert not mine.hand_back(stale)
    assert theirs.finish(fresh, drawn(fresh))
    assert [fresh.execution in image.key for image in desk.record(fresh.id).images] == [True]
    desk.assert_clean()


def test_a_zombie_can_neither_renew_nor_tell_progress(desk, mine, theirs):
    stale = taken(mine, desk)
    end_lease(desk, stale)
    theirs.rescue(stale.id, stale.execution)
    assert isinstance(claim(theirs, theirs.pop(1.0)), Taken)
    progress = {stale.id: Progress(steps_done=3, steps_total=4)}
    with desk.redis.pipeline() as pipe:
        Leases(desk.redis, "zombie", lease_ms=1000).renew(pipe, [stale], progress)
        assert pipe.execute() == [[b"lost"]]
    assert not desk.redis.exists(keys.lease(stale.execution))
    assert [event for event, _ in desk.events(stale.id)] == ["state"] * 4


def test_a_generation_deleted_before_a_slow_finish_stays_deleted(desk, mine, slow):
    claimed = taken(mine, desk)
    gate = Gate(slow, lambda: mine.finish(claimed, drawn(claimed)))
    control.remove(desk.redis, desk.record(claimed.id), retention=600)
    assert gate.open() is not None
    assert list(desk.redis.hgetall(keys.generation(claimed.id))) == [b"owner", b"deleted_at"]
    desk.assert_clean()


def test_an_end_is_written_once_however_often_it_is_tried(desk, mine):
    claimed = taken(mine, desk)
    assert [mine.finish(claimed, drawn(claimed)) for _ in range(3)] == ["succeeded"] * 3
    assert desk.states(claimed.id).count("succeeded") == 1


def test_canceled_in_rq_wins_over_a_result(desk, mine):
    claimed = taken(mine, desk)
    desk.job(claimed.id).cancel()
    assert mine.finish(claimed, drawn(claimed))
    assert desk.states(claimed.id) == ["queued", "running", "canceled"]
    assert desk.job(claimed.id).get_status() is JobStatus.CANCELED
    assert Result.all(desk.job(claimed.id), serializer=JSONSerializer) == []
    desk.assert_clean()


def test_canceled_in_rq_ends_the_generation_although_its_worker_died(desk, mine):
    claimed = taken(mine, desk)
    desk.job(claimed.id).set_status(JobStatus.CANCELED)
    end_lease(desk, claimed)
    assert mine.rescue(claimed.id, claimed.execution) is Rescue.CLEARED
    assert desk.status(claimed.id) == "canceled"
    desk.assert_clean()


def test_deaths_lead_to_running_alone_and_then_to_quarantine(desk, mine):
    id = desk.submit()
    for deaths in range(DEATHS_BEFORE_ALONE + 1):
        got = claim(mine, mine.pop(1.0))
        assert got.alone == (deaths == DEATHS_BEFORE_ALONE)
        end_lease(desk, got.claim)
        outcome = mine.rescue(id, got.claim.execution)
    assert outcome is Rescue.QUARANTINED
    assert desk.record(id).error.code == "quarantined"
    assert desk.registries()["failed"] == [id]
    desk.assert_clean()


def test_one_to_run_alone_is_not_claimed_in_company(desk, mine):
    id = desk.submit()
    desk.redis.hset(desk.job(id).key, keys.DEATHS, DEATHS_BEFORE_ALONE)
    assert mine.claim(mine.pop(1.0), room=4, empty=False) is Refusal.NO_ROOM
    assert desk.queue.get_job_ids() == [id]
    assert claim(mine, mine.pop(1.0)).alone


def test_an_end_whose_reply_was_lost_is_not_written_again(desk, unlucky, proxy):
    claimed = taken(unlucky, desk)
    proxy.swallow = 1
    assert unlucky.finish(claimed, drawn(claimed))
    assert proxy.swallowed == 1
    assert desk.states(claimed.id) == ["queued", "running", "succeeded"]
    assert len(Result.all(desk.job(claimed.id), serializer=JSONSerializer)) == 1
    desk.assert_clean()


def test_a_claim_whose_reply_was_lost_is_ours(desk, unlucky, proxy):
    id = desk.submit()
    assert unlucky.pop(1.0) == id
    proxy.swallow = 1
    got = claim(unlucky, id)
    assert proxy.swallowed == 1
    assert desk.redis.hget(desk.job(id).key, keys.HOLDER).decode() == got.claim.execution
    assert desk.states(id) == ["queued", "running"]
    assert unlucky.finish(got.claim, drawn(got.claim))
    desk.assert_clean()


def test_a_requeue_whose_reply_was_lost_happens_once(desk, unlucky, proxy):
    claimed = taken(unlucky, desk)
    end_lease(desk, claimed)
    proxy.swallow = 1
    unlucky.rescue(claimed.id, claimed.execution)
    assert proxy.swallowed == 1
    assert desk.queue.get_job_ids() == [claimed.id]
    assert desk.redis.hget(desk.job(claimed.id).key, keys.DEATHS) == b"1"


def test_a_leftover_id_of_a_finished_job_is_dropped(desk, mine):
    claimed = taken(mine, desk)
    assert mine.finish(claimed, drawn(claimed))
    desk.redis.rpush(desk.queue.intermediate_queue_key, claimed.id)
    assert mine.restore(claimed.id) is False
    assert desk.job(claimed.id).get_status() is JobStatus.FINISHED
    desk.redis.rpush(desk.queue.key, claimed.id)
    assert claim(mine, mine.pop(1.0)) is Refusal.LEFTOVER
    assert desk.states(claimed.id) == ["queued", "running", "succeeded"]
    desk.assert_clean()


FAULT = Ended(GenerationState.FAILED, Failure(code="x", message="y"), fault=True)


def test_of_two_who_bring_forward_what_was_postponed_one_wins(desk, mine, theirs, slow):
    claimed = taken(mine, desk)
    assert mine.finish(claimed, FAULT)
    gate = Gate(slow, lambda: mine.bring_forward(claimed.id))
    assert theirs.bring_forward(claimed.id) is True
    assert gate.open() is False
    assert desk.queue.get_job_ids() == [claimed.id]


def test_what_is_canceled_while_it_is_brought_forward_stays_canceled(desk, mine, slow):
    claimed = taken(mine, desk)
    mine.finish(claimed, FAULT)
    gate = Gate(slow, lambda: mine.bring_forward(claimed.id))
    control.cancel(desk.redis, claimed.id, retention=600)
    assert gate.open() is False
    assert desk.status(claimed.id) == "canceled"
    desk.assert_clean()


def test_a_claim_that_is_paused_gives_its_owner_one_turn_only(desk, mine, theirs, slow):
    id = desk.submit()
    assert mine.pop(0.1) == id
    gate = Gate(slow, lambda: mine.claim(id, room=4, empty=True))
    desk.redis.hset(keys.generation(id), "seen", "1")  # so that the claim must look again
    assert isinstance(gate.open(), Taken)
    assert desk.redis.zscore("darkroom:line:demo:rested", "tester") == 1.0
