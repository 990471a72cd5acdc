"""What was found, as a picture. The only place that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.errors import DarkroomError
from server.fleet.figures import PERCENTILES
from server.fleet.plan import Goal
from server.fleet.search import Found

WIDTH, HEIGHT = 10.0, 3.6
"""Inches, of the row of one checkpoint."""
COLOURS = {50: "#2a7f62", 95: "#c58a1b", 99: "#b3402a"}
ROOM = 2.5
"""Of the largest bound, to where seconds are shown."""


def save(path: Path, goal: Goal, found: Sequence[Found]) -> None:
    """A row for each checkpoint: seconds against workers, and how busy they are.

    Raises:
        DarkroomError: there is no matplotlib, or it cannot write such a file there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "plots need matplotlib: pip install '.[plot]' in the folder of Darkroom's source"
        raise DarkroomError(message) from error
    figure = Figure((WIDTH, HEIGHT * len(found)), layout="constrained")
    rows = figure.subplots(len(found), 2, squeeze=False)
    for (seconds, shares), each in zip(rows, found, strict=True):
        _seconds(seconds, goal, each)
        _shares(shares, each)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise DarkroomError(f"cannot write {path}: {error}") from error


def _seconds(axes: Any, goal: Goal, found: Found) -> None:
    numbers = [figures.workers for figures in found.tried]
    for percentile in PERCENTILES:
        values = [getattr(figures.total, f"p{percentile}") for figures in found.tried]
        colour = COLOURS[percentile]
        axes.plot(numbers, values, "o-", color=colour, markersize=3, label=f"p{percentile}")
        if most := goal.bounds.get(percentile):
            axes.axhline(most, color=colour, linestyle=":", label=f"p{percentile} <= {most:g} s")
    axes.set(title=_title(found), xlabel="workers", ylabel="seconds to the picture")
    axes.set_ylim(0, ROOM * max(goal.bounds.values()))
    _finish(axes, found)


def _shares(axes: Any, found: Found) -> None:
    numbers = [figures.workers for figures in found.tried]
    for name, colour in (("load", "#30507a"), ("busy", "#8a8a8a")):
        shares = [100 * getattr(figures, name) for figures in found.tried]
        axes.plot(numbers, shares, "o-", color=colour, markersize=3, label=name)
    axes.set(title="how busy they are", xlabel="workers", ylabel="%")
    axes.set_ylim(0, 110)
    _finish(axes, found)


def _finish(axes: Any, found: Found) -> None:
    from matplotlib.ticker import MaxNLocator

    if found.workers:
        axes.axvline(found.workers, color="black", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _title(found: Found) -> str:
    name, rate = found.crew.checkpoint, f"{found.crew.rate:g} generations a second"
    return f"{name}, {rate}: {found.workers or 'no number'} hold the goal"
