"""The real engine with pictures of several sizes, on a clock that only its calls move.

Two rules say who steps next: the planner's, and the oldest first, which came before it. All else is
the same: arrivals, the speed of the device, how many it holds.
"""

from __future__ import annotations

import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from unittest.mock import patch

from server.catalog import load_catalog
from server.fleet.figures import quantile
from server.forecast import Speed
from server.pixels import Inputs
from server.stages import Stage
from server.workers import engine as engines
from server.workers.engine import Engine, Ticket
from server.workers.native import native_stage
from server.workers.planner import Candidate, choose
from server.workers.simulated import SimulatedDenoiser, SimulatedState

NATIVE = 128 * 128
HELD = 8 + 8 // 4
"""Tickets that are in the engine at most: a capacity of eight, and a quarter more."""
SEED = 11
GENERATIONS, BACKLOG = 800, 400
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9)
"""Of the rate at which a device draws what waits in an endless queue."""

DEVICES = {
    "a CPU": Speed(
        native_pixels=NATIVE,
        curve=((2, 0.0151), (4, 0.0200), (8, 0.0355), (16, 0.0533), (32, 0.1024)),
        smallest=(0.6, 0.0084),
        full_rows=8,
        exponent=0.867,
        decode_seconds=0.0129,
    ),
    "bound by arithmetic": Speed(
        native_pixels=NATIVE,
        curve=((2, 0.02), (4, 0.04)),
        smallest=(0.5, 0.008),
        full_rows=2,
        decode_seconds=0.01,
    ),
    "bound by launches": Speed(
        native_pixels=NATIVE,
        curve=((2, 0.02), (4, 0.02), (8, 0.021), (16, 0.042)),
        full_rows=8,
        decode_seconds=0.01,
    ),
}
"""The first was measured with the demo checkpoint on two quiet cores; the others are what large
pictures and small ones come to on a GPU."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Pictures that are alike."""

    name: str
    side: int
    steps: int
    share: float
    """Of the arrivals."""


KINDS = (
    Kind("small", 64, 20, 0.60),
    Kind("medium", 128, 20, 0.32),
    Kind("large", 256, 30, 0.08),
)
ALIKE = (Kind("medium", 128, 20, 1.0),)

Rule = Callable[[Sequence[Candidate], int], list[int]]


def oldest_first(candidates: Sequence[Candidate], max_step_pixels: int) -> list[int]:
    """Who steps where nothing counts but who came first."""
    # Of tickets that all need as much the oldest is the most impatient.
    return choose([_as_long(each) for each in candidates], max_step_pixels)


def _as_long(each: Candidate) -> Candidate:
    return Candidate(each.bucket, each.rows, each.pixels, each.age, 1e6, each.priority, each.slack)


RULES: dict[str, Rule] = {"the oldest first": oldest_first, "the most impatient first": choose}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A generation that comes then."""

    at: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Call:
    """A step or a decode, and whose."""

    began: float
    ended: float
    numbers: tuple[int, ...]
    decodes: bool = False


@dataclass(slots=True)
class Watched(SimulatedDenoiser):
    """Its calls take as long as the speed says, by a clock of its own."""

    speed: Speed = field(default_factory=lambda: next(iter(DEVICES.values())))
    now: float = 0.0
    calls: list[Call] = field(default_factory=list)

    def predict(self, states: Sequence[SimulatedState]) -> Sequence[int]:
        """A step."""
        rows = self.speed.native_rows(sum(s.rows for s in states), states[0].pixels)
        self._pass(self.speed.step_seconds(rows), states)
        return [s.seed for s in states]

    def decode(self, states: Sequence[SimulatedState]) -> Sequence[object]:  # type: ignore[override]
        """As pictures of no use."""
        seconds = self.speed.decoding_seconds(len(states), states[0].pixels)
        self._pass(seconds, states, decodes=True)
        return SimulatedDenoiser.decode(self, states)

    def _pass(
        self, seconds: float, states: Sequence[SimulatedState], *, decodes: bool = False
    ) -> None:
        began, self.now = self.now, self.now + seconds
        self.calls.append(Call(began, self.now, tuple(s.seed for s in states), decodes))


@dataclass(slots=True)
class Drawn:
    """What came of some arrivals."""

    arrivals: Sequence[Arrival]
    ended: list[float]
    calls: Sequence[Call]
    speed: Speed

    @property
    def rate(self) -> float:
        """Generations a second, from the first that came to the last that was done."""
        return len(self.ended) / (max(self.ended) - self.arrivals[0].at)

    def slow_downs(self, kind: Kind | None = None) -> list[float]:
        """Seconds from arrival to picture, over those that it takes alone, rising; of all in the
        middle of the run, or of a kind."""
        first, end = len(self.ended) // 10, len(self.ended) * 19 // 20
        return sorted(
            (ended - each.at) / alone(each.kind, self.speed)
            for each, ended in list(zip(self.arrivals, self.ended, strict=True))[first:end]
            if kind in (None, each.kind)
        )


def alone(kind: Kind, speed: Speed) -> float:
    """Seconds that a picture takes with nobody beside it."""
    return speed.alone_seconds(kind.steps, 2, kind.side**2)


def poisson(kinds: Sequence[Kind], rate: float, count: int) -> list[Arrival]:
    """So many arrivals, each independent of all before; always the same."""
    dice, at, arrivals = random.Random(SEED), 0.0, []
    for _ in range(count):
        at += dice.expovariate(rate)
        [kind] = dice.choices(kinds, [each.share for each in kinds])
        arrivals.append(Arrival(at, kind))
    return arrivals


def drawn(arrivals: Sequence[Arrival], speed: Speed, rule: Rule) -> Drawn:
    """By an engine that takes in as many as it may hold, in their order."""
    denoiser = Watched(speed=speed)
    cap = speed.full_rows * speed.native_pixels
    engine = Engine(denoiser, cap, clock=lambda: denoiser.now)  # type: ignore[arg-type]
    engine.adopt(speed)
    coming, ended = deque(enumerate(arrivals)), [0.0] * len(arrivals)
    with patch.object(engines, "choose", rule):
        while coming or engine.busy:
            if not engine.busy:
                denoiser.now = max(denoiser.now, coming[0][1].at)
            while coming and coming[0][1].at <= denoiser.now and engine.in_flight < HELD:
                engine.admit(_ticket(denoiser, *coming.popleft()))
            for outcome in engine.step().outcomes:
                ended[outcome.ticket.state.seed] = denoiser.now
    return Drawn(arrivals, ended, denoiser.calls, speed)


def _ticket(denoiser: Watched, number: int, arrival: Arrival) -> Ticket:
    stage = _stage(arrival.kind)
    spec = stage.spec.model_copy(update={"seed": number})
    state = denoiser.prepare(stage.model_copy(update={"spec": spec}), 0, Inputs())
    return Ticket(str(number), 0, state, priority=0, deadline=float("inf"))


@cache
def _stage(kind: Kind) -> Stage:
    native = native_stage(load_catalog()["demo"], width=kind.side, height=kind.side)
    spec = native.spec.model_copy(update={"num_inference_steps": kind.steps})
    return native.model_copy(update={"spec": spec})


@dataclass(frozen=True, slots=True)
class Point:
    """One rule at one load."""

    rule: str
    share: float
    kind: str
    """Empty: all."""
    mean: float
    p50: float
    p95: float


def capacity(kinds: Sequence[Kind], speed: Speed, rule: Rule) -> float:
    """Generations a second out of an endless queue."""
    return drawn(poisson(kinds, 1e6, BACKLOG), speed, rule).rate


def curves(
    kinds: Sequence[Kind], speed: Speed, shares: Sequence[float] = SHARES
) -> Iterator[Point]:
    """Slow-downs of all and of each kind by both rules, at shares of what the device can do."""
    most = capacity(kinds, speed, oldest_first)
    for share in shares:
        arrivals = poisson(kinds, share * most, GENERATIONS)
        for name, rule in RULES.items():
            found = drawn(arrivals, speed, rule)
            for kind in (None, *kinds):
                values, label = found.slow_downs(kind), kind.name if kind else ""
                p50, p95 = quantile(values, 0.5), quantile(values, 0.95)
                yield Point(name, share, label, statistics.fmean(values), p50, p95)


def scene(speed: Speed, rule: Rule) -> Drawn:
    """A large picture, beside which small ones come and go."""
    small, medium, large = KINDS
    times = ((0.0, large), (0.3, small), (0.4, medium), (1.2, small), (1.3, small), (2.0, medium))
    return drawn([Arrival(at, kind) for at, kind in times], speed, rule)
