"""Many pictures: as many as can be drawn, and arrivals at random, in real time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import count

from benchmarks.gpu import bars
from benchmarks.gpu.alone import told_of_memory
from benchmarks.gpu.desk import Picture, desk
from benchmarks.gpu.run import Run
from benchmarks.gpu.subject import CAPACITY, Subject, mixed
from server.models.memory import MemoryGauge
from server.spec import AnySpec

BOUND_SECONDS = 6.0
"""That p99 is held to."""
HOPELESS = 3
"""Times the bound: who has waited so long shows that the rate is too high."""
FIRST_LOAD = 0.9
HIGHER, LOWER = (0.95, 1.0), (0.8, 0.7, 0.5)
"""Loads to try where the first is held, until one is not, and where it is not, until one is."""
PLOT = "p99 of seconds to the picture, by share of the saturated rate"


def saturated(run: Run, name: str) -> None:
    """Images a second while a studio always has more to draw, all of as many steps."""
    subject = run.subject(name)
    memory = MemoryGauge(subject.device)
    memory.begin()
    rate, rows, number = _saturated(run, subject)
    done = run.share(rate * run.flops(name).picture(subject.model.steps))
    detail = f"{subject.model.steps} steps each; {done}; {rows:.1f} rows in a mean step"
    run.report.add(bars.SATURATED, name, rate, "/s", f"{detail}; {number} images")
    told_of_memory(run, subject, memory, "saturated")
    run.saturated[name] = rate


def _saturated(run: Run, subject: Subject) -> tuple[float, float, int]:
    """Images a second, mean rows, and how many were counted: from when all that was begun with has
    been drawn."""
    requests = _staggered(subject)
    pictures: list[Picture] = []
    with desk(subject) as studio:
        end = float("inf")
        while len(pictures) < CAPACITY + 2 or time.perf_counter() < end:
            while studio.room:
                studio.ask(next(requests))
            if (picture := studio.next()) is not None:
                pictures.append(picture)
            if len(pictures) == CAPACITY:
                end = time.perf_counter() + run.lengths.saturated_seconds
    counted = pictures[CAPACITY:]
    began, ended = pictures[CAPACITY - 1].done_at, counted[-1].done_at
    rows = [picture.drawn.metrics.mean_batch_rows for picture in counted]
    return len(counted) / (ended - began), sum(rows) / len(rows), len(counted)


def _staggered(subject: Subject) -> Iterator[AnySpec]:
    """Those of the beginning have fewer steps, so that not all finish together ever after."""
    steps, kinds = subject.model.steps, mixed(subject.model, spread=(1.0,))
    for number in count(1):
        spec = next(kinds)
        if number < CAPACITY:
            few = max(2, steps * number // CAPACITY)
            spec = spec.model_copy(update={"num_inference_steps": few})
        yield spec


def arrivals(run: Run, name: str) -> None:
    """The highest share of the saturated rate whose p99 is within the bound."""
    if name not in run.saturated:
        saturated(run, name)
    held: list[float] = []
    points: list[tuple[float, float]] = []
    for load in _loads(held):
        # Half as long again for those that are drawn when the last has come.
        if not run.budget.fits(1.5 * run.lengths.arrival_seconds):
            run.report.leave_out(f"{name}: arrivals at {load:.0%}", "no time left")
            break
        p99, told = _at(run, run.subject(name), load * run.saturated[name])
        points.append((load, p99))
        run.report.add(f"p99 at {load:.0%} of saturated", name, p99, "s", told)
        run.report.trace(PLOT, name, points)
        if p99 <= BOUND_SECONDS:
            held.append(load)
    if points:
        tried = ", ".join(f"{load:.0%}" for load, _ in points)
        run.report.add(bars.ARRIVALS, name, max(held, default=0.0), "x", f"tried: {tried}")


def _loads(held: list[float]) -> Iterator[float]:
    yield FIRST_LOAD
    if held:
        for load in HIGHER:
            yield load
            if load not in held:
                return
    for load in () if held else LOWER:
        yield load
        if held:
            return


def _at(run: Run, subject: Subject, rate: float) -> tuple[float, str]:
    """p99 of the seconds from a request to its PNG in the store, and of what. Requests come when
    they come, whether or not the ones before are done."""
    clock = random.Random(1)
    requests, done = mixed(subject.model), []
    with desk(subject) as studio:
        due = began = time.perf_counter()
        while due < began + run.lengths.arrival_seconds or studio.open:
            now = time.perf_counter()
            while due <= now and due < began + run.lengths.arrival_seconds:
                studio.ask(next(requests), at=due)
                due += clock.expovariate(rate)
            if (picture := studio.next()) is not None:
                done.append(picture.seconds)
            if max(studio.ages, default=0.0) > HOPELESS * BOUND_SECONDS:
                told = f"{len(done)} done and {studio.open} open when it was given up"
                return _p99([*done, *studio.ages]), told
    return _p99(done), f"{len(done)} arrivals, {rate:.3g} a second"


def _p99(values: list[float]) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-99 * len(ordered) // 100) - 1)]
