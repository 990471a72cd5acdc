"""Redis away, killed, restarted, full or flaky: work goes on, and nothing is written twice."""

import os
import signal
import time

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError
from rq.results import Result
from rq.serializers import JSONSerializer

from server.broker import keys
from server.workers.takeover import Takeover
from tests.queue.crew import LEASE_SECONDS, Counts, Crew, Desk, ThreadWorker, short, until
from tests.queue.scripted import ScriptedStudio


@pytest.fixture
def server(mortal_server):
    """These tests kill it."""
    return mortal_server


def test_the_same_executions_go_on_after_redis_was_killed(server, desk, crew):
    worker = crew.thread(lease_seconds=3.0)
    ids = [desk.submit() for _ in range(3)]
    until(lambda: len(worker.studio.claims) == 3)
    server.kill()
    worker.studio.end(ids[0])
    worker.studio.end(ids[1])
    server.start()
    until(lambda: desk.all_ended(ids[:2]))
    assert desk.status(ids[2]) == "running"
    worker.studio.end(ids[2])
    until(lambda: desk.all_ended(ids))
    until(lambda: worker.counts == {"claimed": 3, "succeeded": 3})
    for id in ids:
        assert len(Result.all(desk.job(id), serializer=JSONSerializer)) == 1
    desk.assert_clean()


def test_after_an_outage_longer_than_a_lease_owners_keep_what_they_hold(server, desk, crew):
    owner, other = crew.thread(ScriptedStudio()), crew.thread(ScriptedStudio(capacity=0))
    id = desk.submit()
    until(lambda: id in owner.studio.claims)
    until(lambda: owner._takeover._run_id and other._takeover._run_id)
    os.kill(server._process.pid, signal.SIGSTOP)
    time.sleep(2 * LEASE_SECONDS)  # the outage itself
    os.kill(server._process.pid, signal.SIGCONT)
    until(lambda: desk.redis.exists(keys.lease(owner.studio.admitted[0].execution)))
    owner.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")
    assert other.counts["taken over"] == 0
    assert owner.counts["lost"] == 0


def test_while_redis_is_full_for_longer_than_a_lease_owners_keep_what_they_hold(desk, crew):
    # They beat seldom, so that those who look would be first when Redis takes writes again.
    workers = [crew.thread(lease_seconds=1.0, beat_seconds=0.2) for _ in range(3)]
    ids = [desk.submit() for _ in range(6)]
    until(lambda: sum(len(worker.studio.claims) for worker in workers) == 6)
    desk.redis.config_set("maxmemory", "1")
    time.sleep(2.5)  # the outage itself
    desk.redis.config_set("maxmemory", "0")
    until(lambda: len(list(desk.redis.scan_iter("darkroom:lease:*"))) == 6)
    for worker in workers:
        for id in list(worker.studio.claims):
            worker.studio.end(id)
    until(lambda: sum(worker.counts["succeeded"] for worker in workers) == 6)
    assert sum((worker.counts for worker in workers), Counts()) == {"claimed": 6, "succeeded": 6}
    assert [desk.states(id) for id in ids] == [["queued", "running", "succeeded"]] * 6


@pytest.fixture
def unlucky_crew(proxy):
    """Its workers do not hear every reply."""
    crew = Crew(proxy.url)
    yield crew
    crew.home()


class Clock:
    """Stands in for a ledger, lists and Redis: one execution has no lease, and Redis answers when
    it is told to."""

    def __init__(self) -> None:
        self.run_id = "first"
        self.uptime = 1000
        self.rescued = 0
        self.full = False

    def info(self, section: str) -> dict[str, object]:
        return {"run_id": self.run_id, "uptime_in_seconds": self.uptime}

    def stranded(self) -> list[str]:
        return []

    def due(self) -> list[str]:
        return []

    def unleased(self) -> list[tuple[str, str]]:
        return [("id", "execution")]

    def set(self, name: str, value: str, *, xx: bool) -> None:
        if self.full:
            raise OutOfMemoryError

    def rescue(self, id: str, execution: str) -> None:
        self.rescued += 1


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def takeover(clock):
    return Takeover(clock, clock, clock, 60.0, set, Counts())


def test_rescue_is_not_delayed_without_an_outage(clock, takeover):
    takeover.look()
    assert clock.rescued == 1


def test_rescue_waits_after_a_restart_of_redis(clock, takeover):
    takeover.look()
    clock.run_id = "second"
    takeover.look()
    takeover.look()
    assert clock.rescued == 1


def test_rescue_waits_when_redis_has_just_come_up(clock, takeover):
    clock.uptime = 1
    takeover.look()
    assert clock.rescued == 0


def test_rescue_waits_after_a_gap_but_not_after_a_passing_error(clock, takeover):
    takeover._reached -= 30
    takeover.look()
    assert clock.rescued == 1
    takeover._reached -= 50
    takeover.look()
    assert clock.rescued == 1


def test_rescue_waits_after_writes_were_refused_for_long(clock, takeover):
    takeover.look()
    clock.full = True
    for _ in range(2):
        takeover._reached -= 25
        with pytest.raises(OutOfMemoryError):
            takeover.look()
    clock.full = False
    takeover.look()
    assert clock.rescued == 1


def test_a_rescue_that_fails_is_no_look(clock, takeover, monkeypatch):
    def refuse(id, execution):
        raise OutOfMemoryError

    monkeypatch.setattr(clock, "rescue", refuse)
    reached = takeover._reached
    with pytest.raises(OutOfMemoryError):
        takeover.look()
    assert takeover._reached == reached


def test_a_look_writes_nothing_where_nobody_works(redis, desk, server):
    worker = ThreadWorker(short(server.url), ScriptedStudio(), redis)
    before = redis.keys()
    worker._takeover.look()
    assert redis.keys() == before


def test_what_a_worker_holds_itself_is_not_rescued_by_it(clock):
    takeover = Takeover(clock, clock, clock, 60.0, lambda: {"execution"}, Counts())
    takeover.look()
    assert clock.rescued == 0


def test_a_worker_waits_for_redis_to_come_up(server, desk, crew, caplog):
    id = desk.submit()
    server.kill()
    worker = crew.thread(ScriptedStudio(ticks=1))
    until(lambda: "waiting for Redis" in caplog.text)
    server.start()
    until(lambda: worker.counts["succeeded"] == 1)
    assert desk.status(id) == "succeeded"


def test_a_worker_told_to_stop_while_redis_is_away_leaves(server, desk, crew):
    worker = crew.process()
    id = desk.submit()
    until(lambda: desk.status(id) == "running")
    server.kill()
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=10) == 0


def test_lost_replies_under_load_finish_everything_once(desk, proxy, unlucky_crew):
    worker = unlucky_crew.thread(ScriptedStudio(ticks=1, tick_seconds=0.005), lease_seconds=3.0)
    ids = []
    for number in range(40):
        ids.append(desk.submit())
        proxy.swallow += number % 2
    until(lambda: desk.all_ended(ids))
    assert proxy.swallowed > 10
    for id in ids:
        assert desk.states(id) == ["queued", "running", "succeeded"]
        assert len(Result.all(desk.job(id), serializer=JSONSerializer)) == 1
    until(lambda: worker.counts["succeeded"] == 40)
    desk.assert_clean()


def test_a_workers_connection_never_repeats_a_command(redis):
    assert redis.get_retry().get_retries() == 0


def test_results_wait_while_redis_is_full(server, desk, crew):
    worker = crew.thread(lease_seconds=3.0)
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    desk.redis.config_set("maxmemory", "1")
    worker.studio.end(id)
    until(lambda: worker._results.empty())
    assert desk.status(id) == "running"
    desk.redis.config_set("maxmemory", "0")
    until(lambda: desk.status(id) == "succeeded")
    assert desk.states(id) == ["queued", "running", "succeeded"]


def test_what_is_asked_for_while_redis_is_full_is_refused_and_changes_nothing(server, desk):
    desk.submit()
    before = {name: desk.redis.dump(name) for name in desk.redis.scan_iter()}
    desk.redis.config_set("maxmemory", "1")
    with pytest.raises(
        ResponseError, match=r"OOM|used memory"
    ):  # Redis 6.2 says it in a script's words
        desk.submit()
    desk.redis.config_set("maxmemory", "0")
    assert {name: desk.redis.dump(name) for name in desk.redis.scan_iter()} == before
    desk.submit()


def test_a_worker_that_redis_forgot_comes_back(server, desk, crew):
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    desk.redis.flushall()
    until(lambda: worker.studio.abandoned == [id] or worker.studio.canceled == [id])
    until(lambda: desk.redis.exists(f"rq:worker:{worker.name}"))
    desk = Desk(desk.redis)
    again = desk.submit()
    until(lambda: again in worker.studio.claims)
