from dataclasses import replace
from itertools import repeat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.workers.planner import (
    CLOSE_SECONDS,
    MOST_SECONDS,
    PATIENCE,
    Candidate,
    choose,
    worthwhile_rows,
)


def a_candidate(**changes):
    fields = {
        "bucket": "small",
        "rows": 2,
        "pixels": 100,
        "age": 0.0,
        "left": 1.0,
        "priority": 0,
        "slack": 60.0,
    }
    return Candidate(**(fields | changes))


def test_nobody_steps_when_nobody_is_there():
    assert choose([], 1000) == []


def test_the_most_impatient_brings_its_bucket_mates_oldest_first():
    tickets = [
        a_candidate(age=0.1),
        a_candidate(age=0.5, bucket="large"),
        a_candidate(age=0.3),
        a_candidate(age=0.9, bucket="large", left=9.0),
    ]
    assert choose(tickets, 10_000) == [3, 1]


def test_of_one_bucket_the_oldest_step_however_impatient_others_are():
    """So that their end can be told when they come."""
    short = a_candidate(age=0.8, left=0.1)
    assert choose([short, a_candidate(age=0.9, left=50.0)], 200) == [1]


def test_a_small_picture_goes_before_a_large_one_that_has_only_been_here_for_longer():
    large = a_candidate(bucket="large", age=1.0, left=9.0)
    assert choose([large, a_candidate(age=0.1, left=0.5)], 10_000) == [1]


def test_a_large_picture_that_is_nearly_done_goes_before_a_small_one_that_has_just_come():
    large = a_candidate(bucket="large", age=9.0, left=1.0)
    assert choose([a_candidate(age=0.1, left=0.5), large], 10_000) == [1]


def test_a_large_picture_that_has_waited_for_very_long_goes_before_small_ones():
    large = a_candidate(bucket="large", age=30.0, left=10.0)
    assert choose([a_candidate(age=1.0, left=0.5), large], 10_000) == [1]


def test_who_leads_goes_on_leading_where_all_need_as_much():
    """So that one is done soon, instead of all late."""
    first, second = a_candidate(bucket="a", age=0.2), a_candidate(bucket="b", age=0.1)
    for _ in range(9):
        assert choose([second, first], 10_000) == [1]
        first = replace(first, age=first.age + 0.1, left=first.left - 0.1)
        second = replace(second, age=second.age + 0.1)


def test_a_step_stays_under_its_cap_and_lets_smaller_mates_fill_the_gap():
    tickets = [a_candidate(age=3), a_candidate(age=2), a_candidate(age=1, rows=1)]
    assert choose(tickets, 300) == [0, 2]


def test_a_ticket_over_the_cap_steps_alone():
    assert choose([a_candidate(pixels=10**6), a_candidate(pixels=10**6)], 100) == [0]


def test_priority_goes_before_impatience():
    assert choose([a_candidate(age=0.9 * PATIENCE), a_candidate(priority=1)], 200) == [1]
    nearly_done = a_candidate(age=0.9 * PATIENCE, left=0.01)
    assert choose([nearly_done, a_candidate(priority=1)], 200) == [1]


@pytest.mark.parametrize("bucket", ["small", "large"])
def test_age_beats_priority_in_the_end(bucket):
    patient = a_candidate(age=3 * PATIENCE, bucket=bucket)
    assert choose([a_candidate(priority=2, age=0.1), patient], 200) == [1]


def test_mates_of_lower_priority_fill_the_room_that_is_left():
    tickets = [a_candidate(age=2), a_candidate(age=1), a_candidate(priority=1)]
    assert choose(tickets, 400) == [2, 0]


def test_a_close_deadline_raises_a_ticket():
    hurried = a_candidate(slack=0.9 * CLOSE_SECONDS)
    assert choose([a_candidate(age=0.9), hurried], 200) == [1]


def test_what_has_nothing_left_to_do_is_as_impatient_as_can_be():
    assert choose([a_candidate(age=50.0), a_candidate(age=0.1, left=0.0, bucket="large")], 200) == [
        1
    ]


candidates = st.builds(
    Candidate,
    bucket=st.sampled_from("abc"),
    rows=st.sampled_from([1, 2]),
    pixels=st.integers(1, 1000),
    age=st.floats(0, 100),
    left=st.floats(0, 100),
    priority=st.integers(-10, 10),
    slack=st.floats(-10, 100),
)


@given(st.lists(candidates, max_size=20), st.integers(1, 5000))
def test_a_step_is_one_bucket_and_under_the_cap(tickets, cap):
    chosen = choose(tickets, cap)
    assert len(set(chosen)) == len(chosen)
    assert bool(chosen) == bool(tickets)
    assert len({tickets[i].bucket for i in chosen}) <= 1
    if len(chosen) > 1:
        assert sum(tickets[i].rows * tickets[i].pixels for i in chosen) <= cap


@given(st.lists(candidates, min_size=1, max_size=8), st.integers(1, 5000))
def test_within_a_priority_the_bucket_of_the_most_impatient_steps_and_its_oldest_first(
    tickets, cap
):
    alike = [replace(ticket, priority=0, slack=60.0) for ticket in tickets]
    first = alike[choose(alike, cap)[0]]
    mates = [ticket for ticket in alike if ticket.bucket == first.bucket]
    assert first.age == max(ticket.age for ticket in mates)
    assert max(t.impatience for t in mates) == max(t.impatience for t in alike)


@given(st.lists(candidates, min_size=2, max_size=8), st.integers(1, 5000))
def test_nobody_steps_before_a_higher_priority_unless_for_very_long_here(tickets, cap):
    first = tickets[choose(tickets, cap)[0]]
    longest = min(MOST_SECONDS, max(ticket.left for ticket in tickets))
    if max(ticket.age for ticket in tickets) < PATIENCE * longest:
        assert first.rank == max(ticket.rank for ticket in tickets)


HELD, STEPS = 4, 6
"""Tickets beside the one that is looked at, and the most steps of each."""
works = st.tuples(st.integers(1, STEPS), st.sampled_from([1.0, 2.0, 3.0]), st.integers(-1, 1))
"""Steps, seconds of each, priority."""


def steps_of_one(victim, crowd):
    """When it steps, beside a crowd of which the next comes in the moment in which another is
    done."""
    coming, now = iter(crowd), 0.0
    held = [(victim, 0.0)] + [(next(coming), 0.0) for _ in range(HELD)]
    while True:
        line = [
            a_candidate(bucket=n, age=now - came, left=steps * each, priority=priority)
            for n, ((steps, each, priority), came) in enumerate(held)
        ]
        [first] = choose(line, 1)
        (steps, each, priority), came = held[first]
        now += each
        if first == 0:
            yield now
            if steps == 1:
                return
        held[first] = ((steps - 1, each, priority), came) if steps > 1 else (next(coming), now)


@example(victim=(1, 1.0, -1), crowd=[(STEPS, 3.0, 1)])
@example(victim=(STEPS, 3.0, -1), crowd=[(1, 1.0, 1)])
@given(works, st.lists(works, min_size=1, max_size=40))
def test_nobody_starves_however_many_smaller_and_more_important_ones_keep_coming(victim, crowd):
    """Whoever steps before it has been here for a share of its age: for nearly as long, where its
    priority is another, and else as it is as impatient. Those who were here so long ago are few,
    and have few steps left: they cannot fill that share of its age for ever."""

    def endless():
        while True:
            yield from crowd

    steps, seconds, _ = victim
    longest = STEPS * 3.0
    theirs = HELD * longest  # all that can be left of those who were here at one moment
    first = next(steps_of_one(victim, endless()))
    assert first - seconds <= 4 * PATIENCE * longest + theirs + theirs * steps * seconds


@pytest.mark.parametrize("small", [1, 3, 10])
def test_a_large_picture_beside_an_endless_stream_of_small_ones_has_its_equal_share(small):
    *_, done = steps_of_one((20, 3.0, 0), repeat((small, 1.0, 0)))
    assert done <= (1 + HELD) * 20 * 3.0


def test_rows_pay_until_a_row_costs_as_much_as_before():
    assert worthwhile_rows([(2, 1.0), (4, 1.2), (8, 1.9), (16, 3.7), (32, 7.4)]) == 8


def test_one_disturbed_measure_does_not_hide_the_larger_ones():
    assert worthwhile_rows([(2, 1.0), (4, 9.0), (8, 1.9), (16, 2.0)]) == 16


def test_one_measure_is_enough():
    assert worthwhile_rows([(2, 1.0)]) == 2
