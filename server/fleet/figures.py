"""What a simulated crew comes to, in figures. A pure function of its generations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.fleet.device import Tally
from server.fleet.plan import Crew, Goal
from server.fleet.simulation import Arrival, Generation, simulate

PERCENTILES = (50, 95, 99)
FILLING, DRYING = 4, 10
"""The first of four parts and the last of ten are not counted: until then the crew fills up, and
from then on it runs dry."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long it took half, nearly all and all but one of a hundred."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class KindFigures:
    """Of generations that are alike."""

    kind: str
    rate: float
    """Generations a second."""
    total: Seconds


@dataclass(frozen=True, slots=True)
class Figures:
    """Of so many workers."""

    workers: int
    load: float
    """Work that comes a second, by what all of them get done where every call is full. From 1 on
    the queue grows without end."""
    busy: float
    """Share of the time in which a worker steps or decodes."""
    rows: float
    """Of a step, averaged over time."""
    images_per_second: float
    """Of one worker."""
    wait: Seconds
    """From acceptance until a worker claims it."""
    total: Seconds
    """From acceptance to the pictures."""
    kinds: tuple[KindFigures, ...]

    def meets(self, goal: Goal) -> bool:
        """Whether all that is asked for holds, and goes on to."""
        bounds = goal.bounds.items()
        return self.load < 1 and all(getattr(self.total, f"p{p}") <= most for p, most in bounds)


def measure(crew: Crew, workers: int, arrivals: Sequence[Arrival]) -> Figures:
    """Simulates so many workers of the crew."""
    first, end = len(arrivals) // FILLING, len(arrivals) - len(arrivals) // DRYING
    since, until = arrivals[first].at, arrivals[end].at
    tally = Tally(since, until)
    counted = simulate(crew, workers, arrivals, tally)[first:end]
    images = sum(crew.kinds[each.kind].stage.spec.num_images for each in counted)
    return Figures(
        workers=workers,
        load=crew.load / workers,
        busy=tally.busy_seconds / (workers * (until - since)),
        rows=tally.row_seconds / max(tally.step_seconds, 1e-9),
        images_per_second=images / (workers * (until - since)),
        wait=_seconds(each.wait_seconds for each in counted),
        total=_seconds(each.total_seconds for each in counted),
        kinds=tuple(
            KindFigures(str(kind), kind.rate, _totals(counted, number))
            for number, kind in enumerate(crew.kinds)
        ),
    )


def quantile(rising: Sequence[float], share: float) -> float:
    """The least of these that so many are not above; 0 of none."""
    return rising[min(len(rising) - 1, int(share * len(rising)))] if rising else 0.0


def _totals(counted: Iterable[Generation], kind: int) -> Seconds:
    return _seconds(each.total_seconds for each in counted if each.kind == kind)


def _seconds(values: Iterable[float]) -> Seconds:
    rising = sorted(values)
    return Seconds(*(quantile(rising, percentile / 100) for percentile in PERCENTILES))
