"""Everything that can happen to a job, in any order, against a model of it in Python.

Two workers, each with a ledger of two queues, on a real Redis. Leases end when the model says so.
After each step what RQ's lists, our record and the line say is compared with the model: each
generation that has not ended is in exactly one place, and nothing that has ended is anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run
from redis import Redis

from server.broker import control, keys
from server.spec import Failure, GenerationState
from server.workers import ledger as ledgers
from server.workers.leases import Leases
from server.workers.ledger import DEATHS_BEFORE_ALONE, Ledger, Refusal, Rescue, Taken
from server.workers.stage import Claim, Ended
from tests.builders import a_refiner
from tests.queue.crew import Desk, ThreadWorker, short
from tests.queue.scripted import ScriptedStudio, done
from tests.redis_server import RedisServer

QUEUES = ("demo", "refiner")
SELDOM_STEPS = 6
"""Between two of those after which little happens to a generation."""
WORKERS = st.sampled_from((0, 1))
FAULTS_BEFORE_FAILED = 2
FAULT = Ended(GenerationState.FAILED, Failure(code="fault", message="ours"), fault=True)
REFUSED = Ended(GenerationState.FAILED, Failure(code="refused", message="theirs"))

QUEUED, POPPED, HELD, POSTPONED = "queued", "popped", "held", "postponed"


@dataclass
class Known:
    """What the model knows of one generation."""

    chain: bool
    place: str = QUEUED
    """Where it is, or the state it has ended in."""
    queue: str = "demo"
    in_line: bool = True
    deaths: int = 0
    faults: int = 0
    holder: str = ""
    leased: bool = False
    cancel_requested: bool = False

    @property
    def over(self) -> bool:
        return self.place not in (QUEUED, POPPED, HELD, POSTPONED)


class Hands(RuleBasedStateMachine):
    """Two workers and a client."""

    def __init__(self, server: RedisServer, redis: Redis) -> None:
        super().__init__()
        redis.flushall()
        self.redis: Any = redis
        self.desk = Desk(redis)
        self.ledgers: list[dict[str, Ledger]] = [
            {name: self._ledger(server, redis, name) for name in QUEUES} for _ in range(2)
        ]
        self.known: dict[str, Known] = {}
        self.claims: list[tuple[str, Claim]] = []
        """All there ever were, and of which queue; most of them are of zombies."""
        self.steps = self.seldom = 0

    @staticmethod
    def _ledger(server: RedisServer, redis: Redis, checkpoint: str) -> Ledger:
        calm = short(server.url, lease_seconds=600.0)
        return ThreadWorker(calm, ScriptedStudio(), redis, checkpoint)._ledger

    def _those(self, *places: str) -> list[str]:
        return [id for id, about in self.known.items() if about.place in places]

    def _held_by(self, claim: Claim) -> Known | None:
        """What is known of it, if this claim holds it."""
        about = self.known[claim.id]
        return about if about.place == HELD and about.holder == claim.execution else None

    def _end(self, about: Known, state: str) -> None:
        about.place, about.in_line, about.holder, about.leased = state, False, "", False

    def _let_go(self, about: Known, place: str) -> None:
        about.place, about.holder, about.leased = place, "", False

    def _some_claim(self, data: st.DataObject) -> tuple[str, Claim]:
        """One that holds its job, if there is one; now and then a zombie's."""
        live = [each for each in self.claims if self._held_by(each[1])]
        stale = [each for each in self.claims if each not in live]
        return data.draw(st.sampled_from([*live * 3, *stale[-3:]]))

    @rule(chain=st.booleans(), priority=st.integers(-1, 1))
    @precondition(lambda self: len(self._those(QUEUED, POPPED, HELD, POSTPONED)) < 3)
    def submit(self, chain: bool, priority: int) -> None:
        more: dict[str, Any] = {"refiner": a_refiner()} if chain else {}
        id = self.desk.submit(deadline_seconds=1e5, priority=priority, **more)
        self.known[id] = Known(chain)

    @rule(worker=WORKERS, data=st.data())
    @precondition(lambda self: self._those(QUEUED))
    def pop(self, worker: int, data: st.DataObject) -> None:
        self._pop(worker, data)

    def _pop(self, worker: int, data: st.DataObject) -> str:
        queues = sorted({self.known[id].queue for id in self._those(QUEUED)})
        queue = data.draw(st.sampled_from(queues))
        id = self.ledgers[worker][queue].pop(0.01)
        assert id in [id for id in self._those(QUEUED) if self.known[id].queue == queue]
        self.known[id].place = POPPED
        return id

    @rule(worker=WORKERS, data=st.data(), empty=st.booleans())
    @precondition(lambda self: self._those(POPPED))
    def claim(self, worker: int, data: st.DataObject, empty: bool) -> None:
        self._claim(worker, data.draw(st.sampled_from(self._those(POPPED))), empty)

    @rule(worker=WORKERS, data=st.data(), empty=st.booleans())
    @precondition(lambda self: self._those(QUEUED))
    def pop_and_claim(self, worker: int, data: st.DataObject, empty: bool) -> None:
        self._claim(worker, self._pop(worker, data), empty)

    def _claim(self, worker: int, id: str, empty: bool) -> None:
        about = self.known[id]
        taken = self.ledgers[worker][about.queue].claim(id, room=4, empty=empty)
        alone = about.deaths >= DEATHS_BEFORE_ALONE
        if about.cancel_requested:
            assert isinstance(taken, Ended)
            self._end(about, "canceled")
        elif alone and not empty:
            assert taken is Refusal.NO_ROOM
            about.place = QUEUED
        else:
            assert isinstance(taken, Taken)
            assert (taken.alone, taken.claim.stage.checkpoint) == (alone, about.queue)
            self.claims.append((about.queue, taken.claim))
            about.place, about.holder, about.leased = HELD, taken.claim.execution, True
            about.in_line = False

    @rule(worker=WORKERS, data=st.data())
    @precondition(lambda self: self._those(POPPED))
    def restore(self, worker: int, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(self._those(POPPED)))
        assert self.ledgers[worker][self.known[id].queue].restore(id)
        self.known[id].place = QUEUED

    @rule(worker=WORKERS, data=st.data())
    @precondition(lambda self: self._those(POSTPONED))
    def bring_forward(self, worker: int, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(self._those(POSTPONED)))
        assert self.ledgers[worker][self.known[id].queue].bring_forward(id)
        self.known[id].place, self.known[id].in_line = QUEUED, True

    @rule(worker=WORKERS, queue=st.sampled_from(QUEUES), data=st.data())
    @precondition(lambda self: self.known and self.steps > self.seldom)
    def meddle(self, worker: int, queue: str, data: st.DataObject) -> None:
        """With what is somewhere else, or over."""
        self.seldom = self.steps + SELDOM_STEPS
        id = data.draw(st.sampled_from(list(self.known)))
        about, ledger = self.known[id], self.ledgers[worker][queue]
        here = about.place if about.queue == queue else ""
        if here != POPPED:
            refused = ledger.claim(id, room=4, empty=True)
            mine = isinstance(refused, Taken) and refused.claim.execution == about.holder
            assert mine or refused is Refusal.LEFTOVER
            assert not ledger.restore(id)
        if here != POSTPONED:
            assert not ledger.bring_forward(id)

    @rule(data=st.data())
    @precondition(lambda self: self.claims)
    def renew(self, data: st.DataObject) -> None:
        _, claim = self._some_claim(data)
        with self.redis.pipeline() as pipe:
            Leases(self.redis, "worker", lease_ms=600_000).renew(pipe, [claim], {})
            [[verdict]] = pipe.execute()
        about = self._held_by(claim)
        if about is None:
            assert verdict == b"lost"
        else:
            assert verdict == (b"canceled" if about.cancel_requested else b"held")
            about.leased = True

    @rule(data=st.data())
    @precondition(lambda self: self._those(HELD))
    def expire(self, data: st.DataObject) -> None:
        about = self.known[data.draw(st.sampled_from(self._those(HELD)))]
        self.redis.delete(keys.lease(about.holder))
        about.leased = False

    @rule(worker=WORKERS, data=st.data())
    @precondition(lambda self: self.claims)
    def rescue(self, worker: int, data: st.DataObject) -> None:
        queue, claim = self._some_claim(data)
        about = self._held_by(claim)
        rescue = self.ledgers[worker][queue].rescue(claim.id, claim.execution)
        if about is None:
            assert rescue is Rescue.CLEARED
        elif about.leased:
            assert rescue is Rescue.ALIVE
        elif about.deaths < DEATHS_BEFORE_ALONE:
            assert rescue is Rescue.REQUEUED
            about.deaths += 1
            self._let_go(about, QUEUED)
        else:
            assert rescue is Rescue.QUARANTINED
            self._end(about, "failed")

    @rule(worker=WORKERS, data=st.data())
    @precondition(lambda self: self.claims)
    def draw(self, worker: int, data: st.DataObject) -> None:
        """Finish, or hand on to the next queue."""
        queue, claim = self._some_claim(data)
        about = self._held_by(claim)
        state = self.ledgers[worker][queue].finish(claim, done(claim))
        if about is None:
            self._was_too_late(claim, state)
        elif not claim.following:
            assert state == "succeeded"
            self._end(about, "succeeded")
        elif about.cancel_requested:
            assert state == "canceled"
            self._end(about, "canceled")
        else:
            assert state == "queued"
            self._let_go(about, QUEUED)
            about.queue, about.in_line, about.deaths, about.faults = "refiner", True, 0, 0

    @rule(worker=WORKERS, data=st.data(), fault=st.booleans())
    @precondition(lambda self: self.claims)
    def fail(self, worker: int, data: st.DataObject, fault: bool) -> None:
        queue, claim = self._some_claim(data)
        about = self._held_by(claim)
        state = self.ledgers[worker][queue].finish(claim, FAULT if fault else REFUSED)
        if about is None:
            self._was_too_late(claim, state)
        elif fault and about.cancel_requested:
            assert state == "canceled"
            self._end(about, "canceled")
        elif fault and about.faults < FAULTS_BEFORE_FAILED:
            assert state == "queued"
            about.faults += 1
            self._let_go(about, POSTPONED)
        else:
            assert state == "failed"
            self._end(about, "failed")

    def _was_too_late(self, claim: Claim, state: GenerationState | None) -> None:
        """Told so; or, where the claim ended under this very execution, it is as if the reply had
        been lost. Nothing is written either way, as the invariants see."""
        if state is not None:
            job = self.redis.hgetall(f"rq:job:{claim.id}")
            token = claim.execution.encode()
            assert token in (job.get(keys.HOLDER.encode()), job.get(keys.HANDED_ON.encode()))

    @rule(worker=WORKERS, data=st.data())
    @precondition(lambda self: self.claims)
    def hand_back(self, worker: int, data: st.DataObject) -> None:
        queue, claim = self._some_claim(data)
        about = self._held_by(claim)
        assert self.ledgers[worker][queue].hand_back(claim) is (about is not None)
        if about is not None:
            self._let_go(about, QUEUED)

    @rule(data=st.data())
    @precondition(lambda self: self.known and self.steps > self.seldom)
    def cancel(self, data: st.DataObject) -> None:
        self.seldom = self.steps + SELDOM_STEPS
        id = data.draw(st.sampled_from([*self._those(HELD, POSTPONED), *self.known]))
        about = self.known[id]
        ended = control.cancel(self.redis, id, retention=600)
        assert (ended is not None) is (about.place in (QUEUED, POPPED, POSTPONED))
        if ended is None:
            about.cancel_requested |= about.place == HELD
        else:
            # Its id may still be in the intermediate list of whoever popped it: it is a leftover.
            self._end(about, "canceled")
            for queue in QUEUES:
                self.ledgers[0][queue].restore(id)

    @invariant()
    def each_is_in_one_place(self) -> None:
        self.steps += 1
        found = self._found()
        expected = {
            (id, about.place, about.queue) for id, about in self.known.items() if not about.over
        }
        assert found == Counter(expected)

    def _found(self) -> Counter[tuple[str, str, str]]:
        """Where RQ has ids, and in which queue."""
        found: Counter[tuple[str, str, str]] = Counter()
        for name in QUEUES:
            queue = self.desk.queues[name]
            with self.redis.pipeline(transaction=False) as pipe:
                pipe.lrange(queue.key, 0, -1)
                pipe.lrange(queue.intermediate_queue_key, 0, -1)
                pipe.zrange(queue.started_job_registry.key, 0, -1)
                pipe.zrange(queue.scheduled_job_registry.key, 0, -1)
                answers = pipe.execute()
            for place, ids in zip((QUEUED, POPPED, HELD, POSTPONED), answers, strict=True):
                found.update((id.decode().partition(":")[0], place, name) for id in ids)
        return found

    @invariant()
    def records_jobs_and_leases_agree(self) -> None:
        rq = {QUEUED: "queued", POPPED: "queued", HELD: "started", POSTPONED: "scheduled"}
        ended = {"succeeded": "finished", "failed": "failed", "canceled": "canceled"}
        ours = {HELD: "running"}
        for id, about in self.known.items():
            status = about.place if about.over else ours.get(about.place, "queued")
            assert self.redis.hget(keys.generation(id), "status") == status.encode()
            job = self.redis.hgetall(f"rq:job:{id}")
            assert job[b"status"].decode() == (rq | ended)[about.place]
            if not about.over:
                assert job.get(keys.HOLDER.encode(), b"").decode() == about.holder
                assert int(job.get(keys.DEATHS.encode(), 0)) == about.deaths
                assert int(job.get(keys.RETRIES.encode(), 0)) == about.faults
            happened = [event for event, _ in self.desk.events(id)]
            assert happened.count("done") == about.over
        leases = {lease.decode() for lease in self.redis.scan_iter("darkroom:lease:*")}
        held = {keys.lease(about.holder) for about in self.known.values() if about.leased}
        assert leases == held

    @invariant()
    def the_line_holds_who_has_its_turn_before_it(self) -> None:
        for name in QUEUES:
            line = keys.line(name)
            waiting = {id.encode() for id, a in self.known.items() if a.in_line and a.queue == name}
            assert set(self.redis.hkeys(f"{line}:owners")) == waiting
            assert set(self.redis.zrange(f"{line}:of:tester", 0, -1)) == waiting
        living = {id.encode() for id, about in self.known.items() if not about.over}
        assert self.redis.smembers(keys.living("tester")) == living
        assert set(self.redis.zrange(keys.DEADLINES, 0, -1)) == living


@pytest.fixture
def machine(
    server: RedisServer, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Hands]:
    monkeypatch.setattr(ledgers, "RETRY_SECONDS", (1000.0,) * FAULTS_BEFORE_FAILED)
    return lambda: Hands(server, redis)


def test_whatever_happens_in_whatever_order(machine: Callable[[], Hands]) -> None:
    calm = [HealthCheck.too_slow, HealthCheck.data_too_large]
    quick = [Phase.explicit, Phase.reuse, Phase.generate]  # shrinking takes minutes: add it by hand
    run(
        machine,  # type: ignore[arg-type]
        settings=settings(
            max_examples=35,
            stateful_step_count=60,
            deadline=None,
            phases=quick,
            suppress_health_check=calm,
        ),
    )
