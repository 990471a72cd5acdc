"""Figures of the study and of real servers, for `make bench`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.fairness import real
from benchmarks.fairness.study import ALIKE, DEVICES, KINDS, RULES, Point, capacity, curves
from benchmarks.load import CAPACITY, house
from benchmarks.service import private_server
from benchmarks.timing import Figure, at_least, at_most, noted

STEP_MILLISECONDS, ROW_MILLISECONDS, DECODE_MILLISECONDS = 4.0, 4.0, 10.0
"""Of the worker that sleeps instead of drawing."""
SLEEPING_SECONDS, DRAWING_SECONDS = 60.0, 45.0
LOAD = 0.7
"""At which the rules are compared."""


def study() -> dict[str, list[Point]]:
    """The curves of all devices."""
    return {device: list(curves(KINDS, speed)) for device, speed in DEVICES.items()}


def figures() -> Iterator[Figure]:
    """All of them; takes about three minutes."""
    yield from study_figures(study())
    with house(
        STEP_MILLISECONDS, 1, ROW_MILLISECONDS, DECODE_MILLISECONDS, capacity=CAPACITY
    ) as here:
        yield from real.figures("sleeping worker", here.url, SLEEPING_SECONDS)
    with private_server() as client:
        yield from real.figures("demo", str(client.base_url), DRAWING_SECONDS)


def study_figures(found: Mapping[str, Sequence[Point]]) -> Iterator[Figure]:
    """The planner's rule over serving the oldest first."""
    for device, points in found.items():
        old, new = (_at(points, rule) for rule in RULES)
        detail = "; ".join(
            f"{kind.name} {old[kind.name].p95:.1f} to {new[kind.name].p95:.1f}" for kind in KINDS
        )
        name = f"(r) {device}: slow-down over oldest first"
        yield at_most(f"{name}, mean", new[""].mean / old[""].mean, 1.0)
        yield noted(f"{name}, p95", new[""].p95 / old[""].p95, "x", f"p95 by kind: {detail}")
        rates = [capacity(KINDS, DEVICES[device], rule) for rule in RULES.values()]
        name = f"(r) {device}: rate over that of oldest first"
        yield at_least(name, rates[1] / rates[0], 0.97)
    rates = [capacity(ALIKE, DEVICES["a CPU"], rule) for rule in RULES.values()]
    yield at_least("(r) of one size: rate over that of oldest first", rates[1] / rates[0], 1.0)


def _at(points: Sequence[Point], rule: str) -> dict[str, Point]:
    return {each.kind: each for each in points if (each.rule, each.share) == (rule, LOAD)}
