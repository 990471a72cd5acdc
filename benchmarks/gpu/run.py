"""What one run of the command has in hand: its options, its budget, and what it has loaded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.budget import Budget
from benchmarks.gpu.ceiling import Flops, flops, matmul_flops_per_second
from benchmarks.gpu.checkpoints import Model
from benchmarks.gpu.device import crowded, give_back
from benchmarks.gpu.report import Report
from benchmarks.gpu.subject import Subject, loaded


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long things are measured."""

    rounds: int
    """Alternating runs of each."""
    steps: tuple[int, int, int]
    """Of pictures that are drawn alone; bars are for the second."""
    calls: int
    """Steps in one run at most, below a hundred."""
    pictures: int
    """That each peer draws in one run."""
    saturated_seconds: float
    arrival_seconds: float
    """Of arrivals at one rate."""
    full_rows: int | None = None
    """That share a step; measured, unless it is said."""

    def with_rounds(self, rounds: int) -> Lengths:
        """The same otherwise."""
        return replace(self, rounds=rounds)


RUN_SECONDS = 1.5
FEWEST_CALLS = 3

USUAL = Lengths(5, (20, 30, 50), 30, 18, saturated_seconds=25.0, arrival_seconds=45.0)
QUICK = Lengths(3, (20, 30, 50), 15, 9, saturated_seconds=10.0, arrival_seconds=20.0)
SMOKE = Lengths(1, (2, 3, 4), 2, 2, saturated_seconds=0.3, arrival_seconds=0.3, full_rows=8)


@dataclass
class Run:
    """Measurements take this; they are run one after the other."""

    device: torch.device
    dtype: str
    models: Mapping[str, Model]
    lengths: Lengths
    budget: Budget
    report: Report
    compiling: Mapping[str, Any] = field(default_factory=dict)
    """How the peers' `torch.compile` is called."""
    fitting: Mapping[str, Any] = field(default_factory=dict)
    """Settings other than the defaults that the engine is measured with."""
    compiled_dir: Path = Path("compiled")
    """Where what is compiled is kept."""
    saturated: dict[str, float] = field(default_factory=dict)
    """Images a second, as far as they are known."""
    pipelines: dict[str, Any] = field(default_factory=dict)
    """Compiled ones: it takes minutes to make another."""
    _loaded: dict[tuple[str, bool], Subject] = field(default_factory=dict)
    _flops: dict[str, Flops] = field(default_factory=dict)

    def subject(self, name: str) -> Subject:
        """The model as it is to be measured."""
        return self._kept(name, plain=not self.fitting)

    def plain(self, name: str) -> Subject:
        """The model with all settings at their defaults."""
        return self._kept(name, plain=True)

    def _kept(self, name: str, plain: bool) -> Subject:
        """Stays loaded as long as there is room."""
        if (name, plain) not in self._loaded:
            if crowded(self.device):
                self.forget()
            subject = self.load(name, **({} if plain else self.fitting))
            self._loaded[name, plain] = subject
            what = "until it is ready" + (" with default settings" if plain else "")
            self.report.add(what, name, subject.seconds_to_ready, "s")
        return self._loaded[name, plain]

    def load(self, name: str, **fitting: Any) -> Subject:
        """The model fitted another way; nobody else has it."""
        full_rows = self.lengths.full_rows
        return loaded(self.models[name], self.device, self.dtype, full_rows, **fitting)

    def forget(self) -> None:
        """Let go of all that is loaded."""
        self._loaded.clear()
        self.pipelines.clear()
        self.tidy()

    def tidy(self) -> None:
        """Give back what nobody holds any more."""
        gc.collect()
        give_back(self.device)

    def calls(self, subject: Subject, rows: int) -> int:
        """Steps in one run with so many rows: fewer where they take long."""
        enough = RUN_SECONDS / max(subject.speed.step_seconds(rows), 1e-6)
        return min(self.lengths.calls, max(FEWEST_CALLS, int(enough)))

    def flops(self, name: str) -> Flops:
        """Of the model's parts."""
        if name not in self._flops:
            self._flops[name] = flops(self.models[name])
        return self._flops[name]

    @cached_property
    def ceiling(self) -> float:
        """Operations a second, measured when it is first asked for."""
        return matmul_flops_per_second(self.device, getattr(torch, self.dtype))

    def share(self, flops_per_second: float) -> str:
        """Of the ceiling, in words."""
        tera = flops_per_second / 1e12
        return f"{tera:.3g} TFLOP/s, {flops_per_second / self.ceiling:.1%} of a matrix product's"

    def in_turn(self, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """What each returns in each round, everybody once in a round; the first round is not
        counted. Fewer rounds where there is no time for all, but one at least."""
        values: dict[str, list[float]] = {name: [] for name in contestants}
        longest = 0.0
        for number in range(self.lengths.rounds + 1):
            if number > 1 and not self.budget.fits(longest):
                break
            before = self.budget.left
            results = {name: run() for name, run in contestants.items()}
            if number:
                longest = max(longest, 0.0 if before == float("inf") else before - self.budget.left)
                for name, value in results.items():
                    values[name].append(value)
        return values
