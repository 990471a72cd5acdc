"""Alternating runs and medians: on a busy machine only ratios from one run can be trusted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: what was measured, the bar it is held to if there is one, and whether
    it is met."""

    name: str
    value: float
    unit: str
    bar: str
    met: bool
    detail: str = ""

    def __str__(self) -> str:
        verdict = ("met" if self.met else "MISSED") if self.bar else ""
        line = f"{self.name:<58} {self.value:>9.3g} {self.unit:<3} {self.bar:>22}  {verdict}"
        line = line.rstrip()
        return f"{line}\n    {self.detail}" if self.detail else line


def at_most(name: str, value: float, bar: float, unit: str = "x", detail: str = "") -> Figure:
    """Lower is better."""
    return Figure(name, value, unit, f"at most {bar:g} {unit}", value <= bar, detail)


def at_least(name: str, value: float, bar: float, unit: str = "x", detail: str = "") -> Figure:
    """Higher is better."""
    return Figure(name, value, unit, f"at least {bar:g} {unit}", value >= bar, detail)


def noted(name: str, value: float, unit: str = "x", detail: str = "") -> Figure:
    """Held to no bar."""
    return Figure(name, value, unit, "", True, detail)


def alternate(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, after one round that is not counted.

    Everybody runs once per round, in turn, so that a slow minute of the machine hits all alike.
    `clock` may count this process' own seconds instead of everybody's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            began = clock()
            run()
            if number:
                seconds[name].append(clock() - began)
    return seconds


def on_one_core(
    contestants: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """As `alternate`, in this process' own seconds on one core: the same whatever else the machine
    does meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return alternate(contestants, rounds, time.process_time)
    finally:
        torch.set_num_threads(threads)


def median_ratio(over: list[float], under: list[float]) -> float:
    """The median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
