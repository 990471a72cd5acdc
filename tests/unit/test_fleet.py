"""The simulated fleet against what can be known without it: the real engine, queueing theory, and
plain sums of work."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import replace

import pytest

from server.fleet.device import Tally
from server.fleet.figures import measure, quantile
from server.fleet.plan import Crew, Goal, Kind, Plan, Traffic
from server.fleet.search import _smallest, find
from server.fleet.simulation import READY, Arrival, poisson, simulate
from server.forecast import Speed
from server.pixels import Inputs
from server.stages import Stage
from server.workers.engine import Engine, Ticket
from server.workers.simulated import SimulatedDenoiser
from tests.builders import a_spec

CURVE = ((2, 0.03011), (4, 0.03772), (8, 0.05833), (16, 0.11095))
"""As of a device that gains by company, and less and less. No sum of these is a round second, at
which rounding would decide who has waited for long."""


def a_kind(rate=1.0, **changes):
    return Kind(Stage(spec=a_spec(**{"num_inference_steps": 10} | changes)), rate)


def a_crew(*kinds, capacity=8, full_rows=8, **changes):
    speed = {"native_pixels": 128 * 128, "curve": CURVE, "full_rows": full_rows} | changes
    return Crew("demo", kinds or (a_kind(),), Speed(**speed), capacity)


def serial(rate):
    """One picture at a time, which takes a second."""
    return a_crew(a_kind(rate), capacity=1, full_rows=2, curve=((2, 0.1),))


def a_plan(**goal):
    traffic = (Traffic(checkpoint="demo", rate=1.0),)
    return Plan(goal=Goal(**goal), traffic=traffic, generations=1000)


def at_once(count):
    return [Arrival(0.0, 0)] * count


class Watch:
    """A clock that goes on when a device is at work."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class TimedDenoiser(SimulatedDenoiser):
    """Takes its time by a watch."""

    def __init__(self, watch, speed):
        super().__init__()
        self.watch, self.speed = watch, speed

    def predict(self, states):
        rows = self.speed.native_rows(sum(s.rows for s in states), states[0].pixels)
        self.watch.now += self.speed.step_seconds(rows)
        return [s.seed for s in states]

    def decode(self, states):
        self.watch.now += self.speed.decoding_seconds(len(states), states[0].pixels)
        return super().decode(states)


def drawn_by_the_engine(crew, arrivals):
    """When each arrival is done by a real engine that claims what it has room for."""
    watch = Watch()
    denoiser = TimedDenoiser(watch, crew.speed)
    engine = Engine(denoiser, crew.speed.full_rows * crew.speed.native_pixels, clock=watch)
    engine.adopt(crew.speed)
    room, coming, done = crew.capacity + crew.capacity // READY, deque(enumerate(arrivals)), {}
    while coming or engine.busy:
        if not engine.busy:
            watch.now = max(watch.now, coming[0][1].at)
        while coming and coming[0][1].at <= watch.now and engine.in_flight < room:
            number, arrival = coming.popleft()
            state = denoiser.prepare(crew.kinds[arrival.kind].stage, 0, Inputs())
            engine.admit(Ticket(str(number), 0, state, priority=0, deadline=float("inf")))
        done |= {int(o.ticket.id): watch.now for o in engine.step().outcomes}
    return [done[number] for number in range(len(arrivals))]


KINDS = {
    "alike": (a_kind(),),
    "mixed steps and guidance": (
        a_kind(2.0, num_inference_steps=7),
        a_kind(1.0, num_inference_steps=31, guidance_scale=1.0),
    ),
    "two sizes": (a_kind(2.0), a_kind(1.0, width=256, height=192, num_inference_steps=13)),
}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("load", [0.3, 0.9, 2.0])
@pytest.mark.parametrize("decode_pixels", [0, 128 * 128], ids=["decodes all", "decodes in turn"])
def test_a_device_draws_as_the_real_engine_does(kinds, load, decode_pixels):
    crew = a_crew(*kinds, decode_seconds=0.021317, decode_pixels=decode_pixels)
    faster = crew.load / load
    arrivals = [Arrival(faster * each.at, each.kind) for each in poisson(crew, 300, seed=1)]
    simulated = [each.answered_at for each in simulate(crew, 1, arrivals)]
    assert simulated == pytest.approx(drawn_by_the_engine(crew, arrivals))


def test_a_serial_worker_waits_as_theory_says():
    """M/D/1: Poisson arrivals, a fixed time each, one server."""
    drawn = simulate(serial(0.7), 1, poisson(serial(0.7), 20_000, seed=3))
    mean = statistics.fmean(each.wait_seconds for each in drawn)
    assert mean == pytest.approx(0.7 / (2 * (1 - 0.7)), rel=0.05)


def test_a_serial_workers_busy_time_is_its_work():
    tally = Tally()
    simulate(serial(0.5), 3, poisson(serial(0.5), 500, seed=0), tally)
    assert tally.busy_seconds == pytest.approx(500.0)


def test_serial_workers_are_busy_for_the_share_that_comes():
    figures = measure(serial(1.5), 2, poisson(serial(1.5), 6_000, seed=0))
    assert figures.load == pytest.approx(0.75)
    assert figures.busy == pytest.approx(0.75, rel=0.03)
    assert figures.images_per_second == pytest.approx(0.75, rel=0.03)
    assert figures.rows == pytest.approx(2.0)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_burst_that_fills_every_call_drains_in_the_time_of_its_work(workers):
    crew = a_crew(capacity=4)  # of which each takes two of the eight rows that share a step
    drawn = simulate(crew, workers, at_once(100 * workers))
    work = 100 * workers * crew.load
    assert max(each.answered_at for each in drawn) == pytest.approx(work / workers, rel=0.05)


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_more_workers_are_never_slower(kinds):
    crew = a_crew(*(replace(kind, rate=10 * kind.rate) for kind in kinds))
    least = int(crew.load) + 1
    arrivals = poisson(crew, 1000, seed=0)
    found = [measure(crew, least + more, arrivals).total for more in range(5)]
    assert [each.p50 for each in found] == sorted((each.p50 for each in found), reverse=True)
    assert [each.p99 for each in found] == sorted((each.p99 for each in found), reverse=True)


def test_everything_is_drawn_once_and_in_its_time():
    crew = a_crew(*KINDS["two sizes"])
    arrivals = poisson(crew, 2000, seed=5)
    drawn = simulate(crew, 3, arrivals)
    assert [(each.accepted_at, each.kind) for each in drawn] == arrivals
    assert all(each.left == 0 for each in drawn)
    assert all(e.answered_at - e.claimed_at > crew.alone(crew.kinds[e.kind]) - 1e-6 for e in drawn)


def test_the_same_seed_is_the_same_fleet_and_another_is_not():
    crew = a_crew(a_kind(8.0))
    first, again, other = (measure(crew, 2, poisson(crew, 1000, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_claims_are_held_back_where_there_is_no_room():
    crew = a_crew(capacity=8)
    drawn = simulate(crew, 1, at_once(11))
    assert sum(each.wait_seconds == 0 for each in drawn) == 8 + 2


def test_a_worker_that_waits_longest_claims_first():
    drawn = simulate(
        a_crew(a_kind(num_inference_steps=1)), 2, [Arrival(n / 100, 0) for n in (0, 1)]
    )
    assert [each.total_seconds for each in drawn] == pytest.approx(2 * [CURVE[0][1]])


def test_what_needs_more_room_than_there_is_runs_in_a_worker_that_is_empty():
    crew = a_crew(a_kind(), a_kind(num_images=12), capacity=8)
    small, large, last = simulate(crew, 1, [Arrival(0.0, 0), Arrival(0.01, 1), Arrival(0.02, 0)])
    assert large.claimed_at == small.answered_at
    assert last.claimed_at >= large.claimed_at


def test_encoding_and_publishing_take_their_time_beside_the_device():
    crew = a_crew()
    [plain] = simulate(crew, 1, at_once(1))
    [more] = simulate(replace(crew, encode_seconds=0.25, publish_seconds=0.5), 1, at_once(1))
    assert more.total_seconds == pytest.approx(plain.total_seconds + 0.75)
    assert crew.alone(crew.kinds[0]) == pytest.approx(plain.total_seconds)


def test_a_device_is_idle_while_all_it_holds_is_being_prepared():
    crew = replace(a_crew(), encode_seconds=5.0)
    alone = crew.alone(crew.kinds[0])
    tally = Tally()
    drawn = simulate(crew, 1, [Arrival(0.0, 0), Arrival(4.0, 0)], tally)
    assert [each.total_seconds for each in drawn] == pytest.approx([alone, alone])
    assert tally.busy_seconds == pytest.approx(2 * (alone - 5.0))


def test_as_many_are_made_ready_as_in_the_studio():
    studio = pytest.importorskip("server.workers.studio", exc_type=ImportError)
    assert studio.READY == READY


@pytest.mark.parametrize("rate", [1.0, 12.0, 60.0])
def test_the_smallest_fleet_holds_and_one_below_it_does_not(rate):
    crew = a_crew(a_kind(rate))
    found = find(a_plan(p99=2.0), crew)
    assert found.workers is not None
    best, below = found.of(found.workers), found.of(found.workers - 1)
    assert best is not None
    assert best.meets(Goal(p99=2.0))
    assert below is None or not below.meets(Goal(p99=2.0))


def test_a_fleet_that_falls_behind_holds_nothing_however_short_the_simulation():
    crew = a_crew(a_kind(40.0))
    workers = int(crew.load)
    figures = measure(crew, workers, poisson(crew, 50, seed=0))
    assert figures.load > 1
    assert not figures.meets(Goal(p99=1e9))


def test_what_takes_too_long_alone_is_held_by_no_number():
    found = find(a_plan(p99=0.1), a_crew())
    assert found.workers is None
    assert [figures.workers for figures in found.tried] == [1]


def test_a_slow_kind_may_miss_where_it_is_rare_enough():
    crew = a_crew(a_kind(99.0), a_kind(0.5, num_inference_steps=150))
    assert find(a_plan(p99=3.0), crew).workers is not None


def test_all_bounds_of_a_goal_must_hold():
    crew = a_crew(a_kind(30.0))
    tight, loose, both = ({"p50": 0.45}, {"p99": 3.0}, {"p50": 0.45, "p99": 3.0})
    few, many = find(a_plan(**loose), crew).workers, find(a_plan(**tight), crew).workers
    assert few < many == find(a_plan(**both), crew).workers


def test_larger_numbers_are_tried_too_where_they_are_to_be_seen():
    found = find(a_plan(p99=2.0), a_crew(a_kind(12.0)), beyond=True)
    assert found.tried[-1].workers == 2 * found.workers


def test_a_percentile_is_what_so_many_are_not_above():
    assert [quantile(range(1, 101), share) for share in (0.5, 0.99, 1.0)] == [51, 100, 100]
    assert quantile([], 0.5) == 0.0


@pytest.mark.parametrize("guess", [1, 3, 41, 42, 43, 300])
@pytest.mark.parametrize("smallest", [1, 42, 299, 300])
def test_the_search_ends_at_the_smallest_wherever_it_begins(guess, smallest):
    tried = []

    def holds(workers):
        tried.append(workers)
        return workers >= smallest

    assert _smallest(holds, guess, 1, 300) == smallest
    assert all(1 <= workers <= 300 for workers in tried)
