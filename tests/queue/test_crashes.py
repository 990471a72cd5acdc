"""Workers that are killed, frozen, told to go, hung or poisoned: nothing they held is lost."""

import os
import signal
import time

import pytest
from rq.job import JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from server.broker import keys
from tests.queue.crew import LEASE_SECONDS, until
from tests.queue.scripted import ScriptedStudio, drawn


def held_by(desk, process, ids):
    """Until the process has claimed all of them."""
    until(lambda: desk.all_ended(ids, "running"))
    return [desk.job(id).worker_name for id in ids]


def test_what_a_killed_worker_held_is_drawn_elsewhere(desk, crew):
    ids = [desk.submit() for _ in range(4)]
    victim = crew.process()
    [first, *_] = held_by(desk, victim, ids)
    rescuer = crew.thread(ScriptedStudio(ticks=5))
    victim.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    until(lambda: rescuer.counts["claimed"] == 4)
    assert time.monotonic() - killed_at < LEASE_SECONDS + 1.5
    until(lambda: desk.all_ended(ids))
    assert rescuer.counts["taken over"] == 4
    assert sorted(claim.id for claim in rescuer.studio.admitted) == sorted(ids)
    assert first != rescuer.name
    for id in ids:
        assert desk.states(id) == ["queued", "running", "queued", "running", "succeeded"]
        assert len(Result.all(desk.job(id), serializer=JSONSerializer)) == 1
    desk.assert_clean()


def test_a_frozen_worker_that_wakes_up_finishes_nothing(desk, crew):
    id = desk.submit()
    frozen = crew.process(studio={"ticks": 100})
    held_by(desk, frozen, [id])
    frozen.send_signal(signal.SIGSTOP)
    rescuer = crew.thread(ScriptedStudio())
    until(lambda: id in rescuer.studio.claims)
    frozen.send_signal(signal.SIGCONT)
    frozen.send_signal(signal.SIGTERM)
    assert frozen.wait(timeout=10) == 0
    assert desk.status(id) == "running"
    rescuer.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")
    assert desk.record(id).images[0].key.endswith(f"{rescuer.studio.admitted[0].execution}.png")
    assert len(Result.all(desk.job(id), serializer=JSONSerializer)) == 1
    desk.assert_clean()


def test_a_worker_that_lost_a_claim_abandons_it(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    desk.redis.hset(desk.job(id).key, keys.HOLDER, "another")
    until(lambda: worker.studio.abandoned == [id])
    assert worker.counts["lost"] == 1


def test_a_claim_that_came_back_outlives_the_late_result_of_the_lost_one(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    stale = worker.studio.admitted[0]
    desk.redis.delete(keys.lease(stale.execution))
    worker._ledger.rescue(id, stale.execution)
    until(lambda: len(worker.studio.admitted) == 2)
    worker.finish(stale, drawn(stale))
    worker._lose(stale)
    worker.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")
    assert desk.states(id) == ["queued", "running", "queued", "running", "succeeded"]
    assert worker.counts["lost"] <= 1


def test_a_lost_claim_is_abandoned_before_its_generation_can_come_back(desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    stale = worker.studio.admitted[0]
    held = []
    worker.studio.abandon = lambda claim: held.append(worker._holdings.executions())
    worker._lose(stale)
    assert held == [{stale.execution}]
    assert worker._holdings.executions() == set()


class Frozen(ScriptedStudio):
    """One whose worker sleeps through the loss of a claim: it never hears of one."""

    def abandon(self, claim) -> None:
        if len(self.admitted) > 1:
            assert claim == self.admitted[0], "the claim that goes on was abandoned"
            self.abandoned.append(claim.id)


def test_a_claim_that_came_back_before_its_loss_was_noticed_is_abandoned_and_goes_on(desk, crew):
    worker = crew.thread(Frozen())
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    stale = worker.studio.admitted[0]
    beat, worker._beat.beat = worker._beat.beat, lambda: None  # it is frozen
    time.sleep(0.1)
    desk.redis.delete(keys.lease(stale.execution))
    worker._ledger.rescue(id, stale.execution)
    until(lambda: len(worker.studio.admitted) == 2)
    worker._beat.beat = beat
    until(lambda: id in worker.studio.abandoned)
    worker.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")
    assert worker.counts["lost"] == 1


def test_a_worker_whose_thread_fails_gives_up(crew):
    worker = crew.thread()
    worker._takeover.look = lambda: 1 / 0
    until(lambda: "ZeroDivisionError" in worker.reason)


def test_an_id_left_in_the_intermediate_list_is_rescued(desk, crew):
    id = desk.submit()
    desk.redis.lmove(desk.queue.key, desk.queue.intermediate_queue_key)
    worker = crew.thread(ScriptedStudio(ticks=1))
    until(lambda: desk.status(id) == "succeeded", seconds=LEASE_SECONDS + 2)
    assert worker.counts["taken over"] == 1
    assert desk.states(id) == ["queued", "running", "succeeded"]
    desk.assert_clean()


def test_poison_is_run_alone_and_then_quarantined(desk, crew):
    poison = desk.submit(seed=666)
    innocent = [desk.submit() for _ in range(3)]
    deaths = []
    for _ in range(3):
        victim = crew.process(state={"fatal_seed": 666}, studio={"ticks": 40})
        assert victim.wait(timeout=20) == 9
        deaths.append(desk.redis.hget(keys.generation(poison), "status"))
    survivor = crew.thread(ScriptedStudio(ticks=1))
    until(lambda: desk.status(poison) == "failed")
    until(lambda: desk.all_ended(innocent))
    assert desk.record(poison).error.code == "quarantined"
    until(lambda: survivor.counts["quarantined"] == 1)  # told just after it is written
    assert poison not in [claim.id for claim in survivor.studio.admitted]
    desk.assert_clean()


def test_one_that_runs_alone_has_no_company(desk, crew):
    suspect = desk.submit()
    desk.redis.hset(desk.job(suspect).key, keys.DEATHS, 2)
    other = desk.submit()
    worker = crew.thread()
    until(lambda: suspect in worker.studio.claims)
    until(lambda: desk.redis.hget(keys.worker(worker.name), "in_flight") == b"1")
    assert desk.queue.get_job_ids() == [other]
    worker.studio.end(suspect)
    until(lambda: other in worker.studio.claims)
    assert worker.studio.most_at_once == 1


def test_sigterm_finishes_what_runs_and_claims_no_more(desk, crew):
    ids = [desk.submit() for _ in range(2)]
    worker = crew.process(studio={"ticks": 30, "tick_seconds": 0.02, "capacity": 2})
    [name, _] = held_by(desk, worker, ids)
    worker.send_signal(signal.SIGTERM)
    until(lambda: desk.redis.hget(keys.worker(name), "state") == b"draining", seconds=0.5)
    late = desk.submit()
    assert worker.wait(timeout=10) == 0
    assert desk.all_ended(ids)
    assert desk.status(late) == "queued"
    assert desk.queue.get_job_ids() == [late]
    assert not desk.redis.exists(keys.worker(name))
    assert desk.redis.hget(f"rq:worker:{name}", "death")


def test_what_is_popped_while_draining_goes_back(desk, crew):
    worker = crew.thread()
    until(lambda: desk.redis.exists(keys.worker(worker.name)))
    worker.request_stop()  # it waits in BLMOVE and cannot know yet
    id = desk.submit()
    worker.thread.join(timeout=10)
    assert desk.queue.get_job_ids() == [id]
    assert desk.states(id) == ["queued"]
    assert worker.studio.admitted == desk.intermediate() == []


@pytest.mark.parametrize("impatience", ["second signal", "grace is over"])
def test_what_does_not_finish_is_handed_back_uncharged(desk, crew, impatience):
    ids = sorted(desk.submit() for _ in range(2))
    drain = 30.0 if impatience == "second signal" else 0.2
    worker = crew.process(drain_seconds=drain)
    held_by(desk, worker, ids)
    worker.send_signal(signal.SIGTERM)
    if impatience == "second signal":
        worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=10) == 0
    assert desk.queue.get_job_ids() == ids
    assert desk.registries()["started"] == []
    for id in ids:
        assert desk.status(id) == "queued"
        assert desk.job(id).get_status() is JobStatus.QUEUED
        assert desk.redis.hget(desk.job(id).key, keys.DEATHS) is None


@pytest.mark.parametrize("doom", ["hang", "lose"])
def test_a_hung_step_or_lost_device_ends_the_process_and_frees_its_claims_at_once(desk, crew, doom):
    id = desk.submit(seed=666)
    doomed = crew.process(state={"fatal_seed": 666, "doom": doom}, lease_seconds=60.0)
    assert doomed.wait(timeout=10) == os.EX_SOFTWARE
    assert desk.status(id) == "running"
    worker = crew.thread()
    until(lambda: id in worker.studio.claims, seconds=3)


def test_a_step_that_never_ends_does_not_keep_a_worker_that_was_told_to_stop(desk, crew):
    id = desk.submit()
    worker = crew.process(state={"doom": "never end"}, drain_seconds=0.1)
    [name] = held_by(desk, worker, [id])
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=10) == os.EX_SOFTWARE
    assert desk.queue.get_job_ids() == [id]
    assert not desk.redis.exists(keys.worker(name))


def test_a_process_that_runs_no_more_python_ends_and_its_work_is_done_elsewhere(desk, crew):
    frozen = crew.process(state={"fatal_seed": 13, "doom": "freeze"}, hang_seconds=1.0)
    id = desk.submit(seed=13)
    assert frozen.wait(timeout=30) != 0
    healthy = crew.thread()
    until(lambda: id in healthy.studio.claims)
    healthy.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")
