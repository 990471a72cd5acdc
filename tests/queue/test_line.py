"""The line against a model of it in a few lines of Python, and what fairness means in numbers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from server.broker import line

QUEUE, INTERMEDIATE, LINE = "queue", "intermediate", "darkroom:line:demo"


class Waiting:
    """A queue and its line, without jobs."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis
        self.count = 0

    def join(self, owner: str, seconds: float = 1.0, weight: float = 1.0, priority: int = 0) -> str:
        self.count += 1
        id = f"{owner}{self.count}"
        with self.redis.pipeline() as pipe:
            about = {"owner": owner, "work": seconds, "weight": weight, "priority": priority}
            line.enter(pipe, LINE, id, **about)
            pipe.rpush(QUEUE, id)
            pipe.execute()
        return id

    def next(self) -> str | None:
        """Pops and claims."""
        id = self.redis.eval(line.NEXT, 2, QUEUE, INTERMEDIATE, LINE)
        if id is None:
            return None
        line.take(self.redis, LINE, id.decode())
        self.redis.lrem(INTERMEDIATE, 0, id)
        return str(id.decode())

    def before(self, id: str) -> tuple[int, float]:
        before = "local n, s = before(ARGV[1], KEYS[1], ARGV[2]); return {n, s .. ''}"
        count, seconds = self.redis.eval(line.LIBRARY + before, 1, QUEUE, LINE, id)
        return count, float(seconds)

    def all(self) -> list[str]:
        return list(iter(self.next, None))


@pytest.fixture
def waiting(redis: Redis) -> Waiting:
    return Waiting(redis)


def test_of_one_owner_the_first_comes_first_but_for_priority(waiting: Waiting) -> None:
    first, second, urgent, late = (
        waiting.join("a"),
        waiting.join("a"),
        waiting.join("a", priority=1),
        waiting.join("a", priority=-1),
    )
    third = waiting.join("a")
    assert waiting.all() == [urgent, first, second, third, late]


def test_owners_take_turns_however_much_one_has_asked_for(waiting: Waiting) -> None:
    for _ in range(20):
        waiting.join("greedy")
    waiting.next()
    small = [waiting.join("small"), waiting.join("small")]
    order = waiting.all()
    assert [order.index(id) for id in small] == [0, 2]


def test_turns_are_of_seconds_not_of_generations(waiting: Waiting) -> None:
    for _ in range(4):
        waiting.join("large", seconds=4)
    for _ in range(16):
        waiting.join("small", seconds=1)
    spent: dict[str, float] = defaultdict(float)
    for id in waiting.all()[:12]:
        spent[id.rstrip("0123456789")] += 4 if id.startswith("large") else 1
    assert abs(spent["large"] - spent["small"]) <= 4


def test_a_weight_of_two_is_worth_two_turns(waiting: Waiting) -> None:
    for _ in range(12):
        waiting.join("heavy", weight=2)
        waiting.join("light")
    taken = waiting.all()[:12]
    assert sum(id.startswith("heavy") for id in taken) == 8


def test_who_was_away_has_saved_nothing_up_and_owes_what_was_drawn(waiting: Waiting) -> None:
    waiting.join("a", seconds=10)
    assert waiting.next() == "a1"
    waiting.join("b", seconds=1)
    waiting.join("a", seconds=10)
    for _ in range(8):
        waiting.join("b", seconds=1)
    late = waiting.join("late", seconds=1)
    order = waiting.all()
    assert order.index(late) <= 1
    assert order.index("a3") == 10


def test_what_was_handed_back_goes_first(waiting: Waiting) -> None:
    waiting.join("a")
    waiting.redis.lpush(QUEUE, "back")
    assert waiting.next() == "back"


def test_what_somebody_took_out_of_the_list_is_passed_over(waiting: Waiting) -> None:
    gone, here = waiting.join("a"), waiting.join("a")
    waiting.redis.lrem(QUEUE, 0, gone)
    assert waiting.all() == [here]
    assert waiting.redis.keys(f"{LINE}:of:*") == []


def test_a_line_that_was_tampered_with_stops_nobody(waiting: Waiting) -> None:
    gone = waiting.join("a")
    waiting.redis.hdel(f"{LINE}:owners", gone)
    waiting.redis.lrem(QUEUE, 0, gone)
    assert waiting.next() is None
    here = waiting.join("a")
    assert waiting.all() == [here]


def test_what_is_popped_while_another_is_being_claimed_spares_nobody_a_turn(
    waiting: Waiting,
) -> None:
    busy, idle = [waiting.join("busy") for _ in range(3)], waiting.join("idle")
    popped = [waiting.redis.eval(line.NEXT, 2, QUEUE, INTERMEDIATE, LINE) for _ in range(4)]
    assert popped == [id.encode() for id in (*busy, idle)]
    for id in popped:
        line.take(waiting.redis, LINE, id.decode())
    rested = dict(waiting.redis.zrange(f"{LINE}:rested", 0, -1, withscores=True))
    assert rested[b"busy"] == 3.0
    assert waiting.redis.keys(f"{LINE}:of:*") == []


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "canceled"])
def test_of_owners_who_come_once_only_so_many_are_remembered_who_owe_most(
    waiting: Waiting, drawn: bool
) -> None:
    waiting.join("debtor", seconds=9)
    waiting.next()
    for number in range(line.MOST_RESTED + 50):
        id = waiting.join(f"guest-{number}-")
        if drawn:
            waiting.next()
        else:
            line.leave(waiting.redis, LINE, id)
    rested = waiting.redis.zrange(f"{LINE}:rested", 0, -1)
    assert len(rested) <= line.MOST_RESTED + 1
    assert b"debtor" in rested
    assert waiting.redis.hlen(f"{LINE}:weights") == len(rested)
    assert len(waiting.redis.keys(f"{LINE}*")) <= 4  # of the line, not of an owner


MOVES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.integers(-1, 1)), st.just("next")
    ),
    max_size=40,
)
EQUAL = st.lists(
    st.one_of(st.tuples(st.sampled_from("abc"), st.just(2), st.integers(-1, 1)), st.just("next")),
    max_size=40,
)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES | EQUAL)
def test_places_come_true_and_nothing_is_left_behind(redis: Redis, moves: list[Any]) -> None:
    redis.flushall()
    waiting, seconds = Waiting(redis), {}
    for move in moves:
        if move == "next":
            waiting.next()
        else:
            owner, cost, priority = move
            seconds[waiting.join(owner, cost, WEIGHTS[owner], priority)] = cost
    told = {id.decode(): waiting.before(id.decode()) for id in waiting.redis.lrange(QUEUE, 0, -1)}
    order = waiting.all()
    assert sorted(order) == sorted(told)
    for place, id in enumerate(order):
        owners = {each[0] for each in told} - {id[0]}
        # Of each other owner one more or less may come first, as turns are whole generations.
        assert abs(told[id][1] - sum(seconds[o] for o in order[:place])) <= 9 * len(owners)
        if len(set(seconds.values())) == 1:
            assert abs(told[id][0] - place) <= len(owners)
    assert redis.exists(f"{LINE}:seconds", f"{LINE}:owners", f"{LINE}:load", f"{LINE}:turns") == 0
