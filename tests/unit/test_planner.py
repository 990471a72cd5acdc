from hypothesis import given
from hypothesis import strategies as st

from server.workers.planner import PATIENCE_SECONDS, Candidate, choose, worthwhile_rows


def a_candidate(**changes):
    fields = {
        "bucket": "small",
        "rows": 2,
        "pixels": 100,
        "age": 0.0,
        "waited": 0.0,
        "priority": 0,
        "slack": 60.0,
    }
    return Candidate(**(fields | changes))


def test_nobody_steps_when_nobody_is_there():
    assert choose([], 1000) == []


def test_the_oldest_brings_its_bucket_mates_oldest_first():
    tickets = [
        a_candidate(age=1),
        a_candidate(age=9, bucket="large"),
        a_candidate(age=3),
        a_candidate(age=5, bucket="large"),
    ]
    assert choose(tickets, 10_000) == [1, 3]


def test_a_step_stays_under_its_cap_and_lets_smaller_mates_fill_the_gap():
    tickets = [a_candidate(age=3), a_candidate(age=2), a_candidate(age=1, rows=1)]
    assert choose(tickets, 300) == [0, 2]


def test_a_ticket_over_the_cap_steps_alone():
    assert choose([a_candidate(pixels=10**6), a_candidate(pixels=10**6)], 100) == [0]


def test_priority_goes_before_age():
    assert choose([a_candidate(age=9), a_candidate(priority=1)], 200) == [1]


def test_waiting_beats_priority_in_the_end():
    patient = a_candidate(waited=3 * PATIENCE_SECONDS, bucket="large")
    assert choose([a_candidate(priority=2, age=9), patient], 200) == [1]


def test_a_close_deadline_raises_a_ticket():
    assert choose([a_candidate(age=9), a_candidate(slack=0.1)], 200) == [1]


candidates = st.builds(
    Candidate,
    bucket=st.sampled_from("abc"),
    rows=st.sampled_from([1, 2]),
    pixels=st.integers(1, 1000),
    age=st.floats(0, 100),
    waited=st.floats(0, 10),
    priority=st.integers(-10, 10),
    slack=st.floats(-10, 100),
)


@given(st.lists(candidates, max_size=20), st.integers(1, 5000))
def test_a_step_is_one_bucket_led_by_the_first_in_line_and_under_the_cap(tickets, cap):
    chosen = choose(tickets, cap)
    assert len(set(chosen)) == len(chosen)
    assert bool(chosen) == bool(tickets)
    assert len({tickets[i].bucket for i in chosen}) <= 1
    if tickets:
        assert tickets[chosen[0]].level == max(t.level for t in tickets)
    if len(chosen) > 1:
        assert sum(tickets[i].rows * tickets[i].pixels for i in chosen) <= cap


@given(st.lists(candidates, min_size=1, max_size=8))
def test_no_bucket_starves_however_it_is_outranked(tickets):
    """Whoever is not chosen waits, and whoever waits long enough is chosen."""
    waited = [t.waited for t in tickets]
    for _ in range(60):
        now = [
            Candidate(t.bucket, t.rows, t.pixels, t.age, w, t.priority, t.slack)
            for t, w in zip(tickets, waited, strict=True)
        ]
        chosen = choose(now, 1)
        waited = [0.0 if i in chosen else w + PATIENCE_SECONDS for i, w in enumerate(waited)]
        assert max(waited) <= PATIENCE_SECONDS * (21 + len(tickets) + 11)


def test_rows_pay_until_a_row_costs_as_much_as_before():
    assert worthwhile_rows([(2, 1.0), (4, 1.2), (8, 1.9), (16, 3.7), (32, 7.4)]) == 8


def test_one_disturbed_measure_does_not_hide_the_larger_ones():
    assert worthwhile_rows([(2, 1.0), (4, 9.0), (8, 1.9), (16, 2.0)]) == 16


def test_one_measure_is_enough():
    assert worthwhile_rows([(2, 1.0)]) == 2
