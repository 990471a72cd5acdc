"""Predicted waits, by the script that decides on them, against a worker that takes exactly the time
that it was measured to take."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from redis import Redis

from server import forecast
from server.broker import hands
from server.forecast import Load, Speed
from server.pixels import Inputs
from server.stages import Stage, stages
from server.workers.engine import Engine, Ticket
from server.workers.simulated import SimulatedDenoiser, SimulatedState
from tests.builders import a_spec

NATIVE = 128 * 128
SPEED = Speed(native_pixels=NATIVE, curve=((2, 0.010), (4, 0.012), (8, 0.016)), full_rows=8)
TOGETHER = 4
"""Pictures that share a call."""

BEGINS = (
    hands.LIBRARY
    + """
local wait, company = begins(
  cjson.decode(ARGV[1]), cjson.decode(ARGV[2]), tonumber(ARGV[3]))
return {tostring(wait), tostring(company)}
"""
)


class Clocked(SimulatedDenoiser):
    """Its calls move a clock as the speed says."""

    now = 0.0

    def predict(self, states: Sequence[SimulatedState]) -> Sequence[int]:
        rows = sum(SPEED.native_rows(state.rows, state.pixels) for state in states)
        self.now += SPEED.step_seconds(rows)
        return [state.seed for state in states]


@dataclass
class Waiting:
    """One that was accepted."""

    stage: Stage
    at: float
    told: float
    ended: float = 0.0

    @property
    def off(self) -> float:
        """By what share of what it took the prediction was wrong."""
        return abs(self.told - (self.ended - self.at)) / (self.ended - self.at)


class House:
    """A worker, its queue, and a door that predicts."""

    def __init__(self, redis: Redis, capacity: int) -> None:
        self.redis, self.capacity = redis, capacity
        self.denoiser = Clocked()
        self.engine = Engine(
            self.denoiser, max_step_pixels=SPEED.full_rows * NATIVE, clock=lambda: self.denoiser.now
        )
        self.queue: list[Waiting] = []
        self.drawing: dict[str, tuple[Waiting, Ticket]] = {}
        self.count = 0

    def predict(self, stage: Stage) -> float:
        demand = forecast.demand(stage, [SPEED], self.capacity)
        ahead = sum(forecast.work(each.stage, SPEED) for each in self.queue)
        held = {"workers": 1} | asdict(self._load())
        said: Any = self.redis.eval(
            BEGINS,
            0,
            json.dumps(hands.asked(demand)),
            json.dumps(held),
            str(ahead),
        )
        wait, company = map(float, said)
        return wait + forecast.duration(stage, SPEED, company)

    def accept(self, stage: Stage) -> Waiting:
        self.queue.append(Waiting(stage, self.denoiser.now, self.predict(stage)))
        return self.queue[-1]

    def step(self) -> None:
        while self.queue and self.engine.in_flight < self.capacity:
            self._claim(self.queue.pop(0))
        for outcome in self.engine.step().outcomes:
            self.drawing.pop(outcome.ticket.id)[0].ended = self.denoiser.now

    def drain(self) -> None:
        while self.queue or self.engine.busy:
            self.step()

    def _claim(self, waiting: Waiting) -> None:
        state = self.denoiser.prepare(waiting.stage, 0, Inputs())
        self.count += 1
        ticket = Ticket(str(self.count), 0, state, priority=0, deadline=1e9)
        self.engine.admit(ticket)
        self.drawing[ticket.id] = waiting, ticket

    def _load(self) -> Load:
        rows, held, left, each = 0.0, 0.0, 0.0, []
        for waiting, ticket in self.drawing.values():
            rows += forecast.native_rows(waiting.stage, SPEED)
            work = forecast.work(waiting.stage, SPEED)
            held += work
            its_rows = forecast.native_rows(waiting.stage, SPEED)
            part = 1 - ticket.steps_done / ticket.state.steps_total
            left += work * part
            each.append(Load(its_rows, work).left(part, 1).each)
        return Load(rows, held, left, " ".join(each))


def a_stage(steps: int = 20, side: int = 128) -> Stage:
    size = {"width": side, "height": side}
    return stages(a_spec(guidance_scale=4.0, num_inference_steps=steps, **size))[0]


@pytest.fixture(params=[4, 8])
def house(redis: Redis, request: pytest.FixtureRequest) -> House:
    """Whose worker holds as many as share a call, or twice as many."""
    return House(redis, capacity=request.param)


@pytest.mark.parametrize("many", [1, 2, 4, 5, 12, 40])
def test_in_a_burst_each_is_told_of_those_before_it(house: House, many: int) -> None:
    accepted = [house.accept(a_stage()) for _ in range(many)]
    house.drain()
    assert [each.told for each in accepted] == sorted(each.told for each in accepted)
    # Those that begin together slow each other down, which the first cannot know; and those that
    # wait are taken for begun one after the other.
    assert max(each.off for each in accepted[min(many, TOGETHER) - 1 :]) <= 0.4


def test_under_steady_load_the_end_is_predicted_within_a_quarter(house: House) -> None:
    mixed = (20, 10, 30, 15, 25, 40)
    for steps in mixed:  # one after the other, until the worker is full
        house.accept(a_stage(steps))
        for _ in range(5):
            house.step()
    accepted = []
    for steps in mixed * 12:
        while len(house.queue) >= 6:
            house.step()
        accepted.append(house.accept(a_stage(steps)))
    house.drain()
    off = [each.off for each in accepted[len(mixed) :]]
    assert statistics.quantiles(off, n=10)[8] <= 0.25
    assert statistics.median(off) <= 0.1


def test_of_small_pictures_beside_large_ones_the_end_is_predicted_too(redis: Redis) -> None:
    house, dice = House(redis, capacity=8), random.Random(3)
    accepted: dict[int, list[Waiting]] = {64: [], 256: []}
    at = 0.0
    for _ in range(400):
        at += dice.expovariate(3.0)
        while house.denoiser.now < at and (house.queue or house.engine.busy):
            house.step()
        house.denoiser.now = max(at, house.denoiser.now)
        side = 256 if dice.random() < 0.2 else 64
        accepted[side].append(house.accept(a_stage(30, side)))
    house.drain()
    small, large = ([each.off for each in several] for several in accepted.values())
    assert statistics.median(small) <= 0.1
    assert statistics.quantiles(small, n=10)[8] <= 0.5
    # Small ones that are yet to come will go before it, which nobody knows.
    assert statistics.median(large) <= 0.4
