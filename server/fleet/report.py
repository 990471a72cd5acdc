"""What was found, as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from server.fleet.figures import Figures, Seconds
from server.fleet.plan import Goal
from server.fleet.search import Found

MOST_ROWS = 7
"""Of the table of numbers that were tried: those nearest to the smallest."""


def as_json(goal: Goal, found: Sequence[Found]) -> str:
    """All figures of all numbers that were tried."""
    checkpoints = [_checkpoint(goal, each) for each in found]
    document = {"goal": goal.model_dump(exclude_none=True), "checkpoints": checkpoints}
    return json.dumps(document, indent=2)


def show(console: Console, goal: Goal, found: Sequence[Found]) -> None:
    """One part for each checkpoint."""
    for each in found:
        console.print(_part(goal, each))


def _checkpoint(goal: Goal, found: Found) -> dict[str, Any]:
    crew = found.crew
    return {
        "checkpoint": crew.checkpoint,
        "workers": found.workers,
        "generations_per_second": crew.rate,
        "load_workers": crew.load,
        "alone_seconds": {str(kind): crew.alone(kind) for kind in crew.kinds},
        "speed": crew.speed.model_dump(mode="json"),
        "capacity": crew.capacity,
        "generations": found.generations,
        "tried": [asdict(tried) | {"holds": tried.meets(goal)} for tried in found.tried],
    }


def _part(goal: Goal, found: Found) -> Group:
    parts: list[RenderableType] = [_verdict(goal, found), *_kinds(found), Text()]
    parts += [_numbers(goal, found)]
    best = found.of(found.workers) if found.workers else None
    if best and len(best.kinds) > 1:
        parts += [Text(), _by_kind(best)]
    return Group(*parts, Text())


def _verdict(goal: Goal, found: Found) -> Text:
    name, rate = found.crew.checkpoint, f"{found.crew.rate:g} generations a second"
    if found.workers is None:
        slowest = max(map(found.crew.alone, found.crew.kinds))
        why = f"alone, the slowest takes {slowest:.3g} s"
        return Text(f"{name}: no number of workers holds {goal} of {rate}; {why}", "bold red")
    workers = "1 worker holds" if found.workers == 1 else f"{found.workers:,} workers hold"
    return Text(f"{name}: {workers} {goal} of {rate}", "bold")


def _kinds(found: Found) -> list[Text]:
    crew = found.crew
    return [
        Text(f"  {kind.rate:g}/s of {kind}; {crew.alone(kind):.3g} s alone") for kind in crew.kinds
    ]


def _numbers(goal: Goal, found: Found) -> Table:
    names = ("workers", "load", "busy", "rows", "images/s each", "wait p50", "p95", "p99")
    heads = (*names, "total p50", "p95", "p99", "goal")
    table = Table(*(Column(name, justify="right", no_wrap=True) for name in heads), box=None)
    for figures in _nearest(found):
        style = "bold" if figures.workers == found.workers else ""
        table.add_row(*_cells(figures), _holds(figures, goal), style=style)
    return table


def _nearest(found: Found) -> list[Figures]:
    middle = found.workers or found.tried[0].workers
    nearest = sorted(found.tried, key=lambda figures: abs(figures.workers - middle))[:MOST_ROWS]
    return sorted(nearest, key=lambda figures: figures.workers)


def _cells(figures: Figures) -> list[str]:
    rest = f"{figures.rows:.1f}", f"{figures.images_per_second:.3g}"
    shares = f"{figures.load:.0%}", f"{figures.busy:.0%}"
    return [f"{figures.workers:,}", *shares, *rest, *_three(figures.wait), *_three(figures.total)]


def _three(seconds: Seconds) -> list[str]:
    return [f"{each:.2f}" for each in (seconds.p50, seconds.p95, seconds.p99)]


def _holds(figures: Figures, goal: Goal) -> str:
    if figures.load >= 1:
        return "falls behind"
    return "holds" if figures.meets(goal) else "misses"


def _by_kind(figures: Figures) -> Table:
    heads = (f"of {figures.workers:,} workers", "total p50", "p95", "p99")
    first, *numbers = heads
    table = Table(Column(first), *(Column(n, justify="right") for n in numbers), box=None)
    for kind in figures.kinds:
        table.add_row(f"{kind.rate:g}/s of {kind.kind}", *_three(kind.total))
    return table
