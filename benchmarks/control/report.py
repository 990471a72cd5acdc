"""The rungs of a ladder for people and programs: a table, JSON and a plot."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.control.sums import PARTS, Rung, bottleneck, quantile

COLOURS = ("#30507a", "#b3402a", "#2a7f62", "#c58a1b", "#d9b877", "#b8b8b8")
CURVE = "calculated, no measurement: 5.0 ms a step of one guided picture, 28.8 ms of eight"
HEAD = (
    " " * 9
    + "generations/s   microseconds of CPU a generation"
    + " " * 16
    + "accept, ms    Redis, a generation\n"
    + "workers    asked    done  "
    + " ".join(f"{part:>7}" for part in PARTS)
    + "     p50    p95  commands    kB  cores"
)


def line(found: Rung) -> str:
    """A rung of the table; `cores` are all that the machine was busy with."""
    costs = " ".join(f"{found.cost(part):>7.0f}" for part in PARTS)
    accept = " ".join(f"{1000 * quantile(found.accept, share):>6.1f}" for share in (0.5, 0.95))
    redis = f"{_each(found, found.commands):>8.0f} {_each(found, found.bytes) / 1000:>5.1f}"
    return (
        f"{found.workers:>7} {found.asked:>8.1f} {found.done:>7.1f}  {costs}  {accept}  {redis}  "
        f"{found.cores['machine']:>5.2f}"
    )


def save(rungs: Sequence[Rung], out: Path) -> None:
    """The rungs as JSON, and a plot beside it."""
    document = {
        "cores": os.cpu_count(),
        "curve": CURVE,
        "rungs": [described(each) for each in rungs],
    }
    out.write_text(json.dumps(document, indent=2) + "\n")
    plot(rungs, out.with_suffix(".png"))


def described(found: Rung) -> dict[str, Any]:
    """A rung without its single generations."""
    took = {"accept": found.accept, "queued": found.queued, "total": found.total}
    each = sorted(found.by_command.items(), key=lambda item: -item[1][1])
    return {
        "workers": found.workers,
        "asked_per_second": found.asked,
        "done_per_second": found.done,
        "refused": found.refused,
        "seconds": {
            name: {f"p{share}": quantile(values, share / 100) for share in (50, 95, 99)}
            for name, values in took.items()
        },
        "cpu_microseconds_per_generation": {part: found.cost(part) for part in PARTS},
        "calculated_limit_per_core": {part: found.limit(part) for part in PARTS},
        "cores_at_rest": found.rest,
        "cores_under_load": found.cores,
        "busiest_process": found.busiest,
        "redis_commands_per_generation": _each(found, found.commands),
        "redis_bytes_per_generation": _each(found, found.bytes),
        "redis_calls_and_microseconds_per_generation": {
            name: [_each(found, calls), _each(found, microseconds)]
            for name, (calls, microseconds) in each
            if calls
        },
        "bottleneck": bottleneck(found, os.cpu_count() or 1),
    }


def plot(rungs: Sequence[Rung], path: Path) -> None:
    """What a generation costs each part, against the number of workers."""
    from matplotlib.figure import Figure

    figure = Figure((8, 4.2), layout="constrained")
    axes = figure.subplots()
    at, under = list(range(len(rungs))), [0.0] * len(rungs)
    for part, colour in zip(PARTS, COLOURS, strict=True):
        costs = [each.cost(part) / 1000 for each in rungs]
        axes.bar(at, costs, 0.6, under, color=colour, label=part)
        under = [below + cost for below, cost in zip(under, costs, strict=True)]
    axes.set_xticks(at, [f"{each.workers}\n{each.done:.0f}/s" for each in rungs])
    axes.set(
        xlabel="workers that sleep, and generations a second",
        ylabel="milliseconds of CPU a generation",
        title="what a generation costs beside its drawing",
    )
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    handles, names = axes.get_legend_handles_labels()
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes.legend(handles[::-1], names[::-1], frameon=False, **beside)
    figure.savefig(path, dpi=120)


def _each(found: Rung, rate: float) -> float:
    return rate / found.done if found.done else 0.0
