"""The smallest number of workers that holds a goal. All are tried with the same arrivals, so that
they differ in nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from server.fleet.figures import Figures, measure
from server.fleet.plan import Crew, Goal, Plan
from server.fleet.simulation import poisson

EACH = 400
"""Generations for each worker, at least: a busy crew takes long to settle."""
ROUGH = 8
"""A large crew is first looked for with one in so many of them."""
STRIDE = 50
"""The first stride is one in so many workers."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one checkpoint."""

    crew: Crew
    workers: int | None
    """The smallest number that holds the goal; None where none does."""
    tried: tuple[Figures, ...]
    """By rising number. The one below the smallest is among them, if there is one."""
    generations: int
    """That were simulated for each."""

    def of(self, workers: int) -> Figures | None:
        """What was found of so many."""
        return next((figures for figures in self.tried if figures.workers == workers), None)


def find(
    plan: Plan,
    crew: Crew,
    *,
    beyond: bool = False,
    tell: Callable[[Figures], object] = lambda figures: None,
) -> Found:
    """By simulating one number after the other.

    Args:
        beyond: try some larger numbers too, to see what they gain.
        tell: is told of each number that was tried.
    """
    least = math.floor(crew.load) + 1
    count = max(plan.generations, EACH * least)
    arrivals = poisson(crew, count, plan.seed)
    tried: dict[int, Figures] = {}

    def holds(workers: int) -> bool:
        if workers not in tried:
            tried[workers] = measure(crew, workers, arrivals)
            tell(tried[workers])
        return tried[workers].meets(plan.goal)

    def about(workers: int) -> bool:
        return measure(crew, workers, arrivals[: count // ROUGH]).meets(plan.goal)

    smallest = None
    if reachable(crew, plan.goal):
        large = count > plan.generations
        guess = _smallest(about, least, least, count) if large else least
        smallest = _smallest(holds, guess, least, count)
    shown = smallest or least
    for workers in (max(1, shown - 1), shown, *(_beyond(shown) if beyond else ())):
        holds(workers)
    return Found(crew, smallest, tuple(tried[n] for n in sorted(tried)), count)


def _beyond(workers: int) -> Iterator[int]:
    return (workers + math.ceil(workers * tenths / 10) for tenths in (1, 2, 4, 7, 10))


def reachable(crew: Crew, goal: Goal) -> bool:
    """Whether it can be held by any number: a generation that is alone takes its time too."""
    alone = sorted((crew.alone(kind), kind.rate) for kind in crew.kinds)
    return all(_within(alone, most) >= p / 100 for p, most in goal.bounds.items())


def _within(alone: list[tuple[float, float]], most: float) -> float:
    """The share of generations that take no longer alone."""
    return sum(r for seconds, r in alone if seconds <= most) / sum(r for _, r in alone)


def _smallest(holds: Callable[[int], bool], guess: int, least: int, most: int) -> int:
    """In growing strides from a guess, up or down, until it lies between one that holds and one
    that does not; then by halves. `most` is taken to hold."""
    stride = max(1, guess // STRIDE)
    fails, does = least - 1, most
    if holds(guess):
        does = guess
        while does > least and holds(max(least, does - stride)):
            does, stride = max(least, does - stride), 2 * stride
        fails = max(fails, does - stride)
    else:
        fails = guess
        while fails + stride < most and not holds(fails + stride):
            fails, stride = fails + stride, 2 * stride
        does = min(most, fails + stride)
    while does - fails > 1:
        middle = (fails + does) // 2
        if holds(middle):
            does = middle
        else:
            fails = middle
    return does
