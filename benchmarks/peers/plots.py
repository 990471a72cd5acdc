"""What a race came to, as pictures. The only place that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import BENTOML, DARKROOM, GROUPS, LITSERVE, LOCK
from benchmarks.peers.loads import MIXED, USUAL
from benchmarks.peers.race import BARE, Race
from benchmarks.peers.report import Row, rows

COLOURS = {
    DARKROOM: "#b3402a",
    LOCK: "#8a8a8a",
    GROUPS: "#2a7f62",
    LITSERVE: "#30507a",
    BENTOML: "#c58a1b",
    BARE: "#c9c9c9",
}
OTHERS = "#7d5ba6"
DPI = 140


def save(folder: Path, race: Race, machine: str) -> list[Path]:
    """Throughput as bars, latency against load as curves; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"peers-{race.checkpoint}-{what}.png" for what in ("throughput", "latency")]
    for path, figure in zip(paths, (_throughput(race), _latency(race)), strict=True):
        figure.supxlabel(machine, fontsize=8, color="#666666")
        figure.savefig(path, dpi=DPI)
    return paths


def _throughput(race: Race) -> Any:
    from matplotlib.figure import Figure

    figure = Figure((10.0, 3.6), layout="constrained")
    found = rows(race)
    for axes, load in zip(figure.subplots(1, 2), (MIXED, USUAL), strict=True):
        _bars(axes, [row for row in found if row.load == load])
        what = "mixed steps, guidance, samplers, sizes" if load == MIXED else "all alike"
        axes.set_title(f"at once, {what}", fontsize=10)
        axes.set_xlabel(f"pictures a second, {race.checkpoint} checkpoint")
    return figure


def _bars(axes: Any, found: Sequence[Row]) -> None:
    ordered = sorted(found, key=lambda row: row.pictures_a_second)
    speeds = [row.pictures_a_second for row in ordered]
    colours = [COLOURS.get(row.peer, OTHERS) for row in ordered]
    bars = axes.barh([row.peer for row in ordered], speeds, color=colours, height=0.65)
    axes.bar_label(bars, [f"{speed:.2f}" for speed in speeds], padding=4, fontsize=9)
    axes.set_xlim(0, 1.15 * max(speeds))
    _quiet(axes, "x")


def _latency(race: Race) -> Any:
    from matplotlib.figure import Figure

    figure = Figure((10.0, 4.4), layout="constrained")
    found = [row for row in rows(race) if row.share]
    for axes, percentile in zip(figure.subplots(1, 2), ("p50", "p95"), strict=True):
        for peer in dict.fromkeys(row.peer for row in found):
            _curve(axes, [row for row in found if row.peer == peer], percentile)
        axes.set_title(f"{percentile} of the time to the picture", fontsize=10)
        axes.set_xlabel("arrivals, % of what a serial server can draw")
        axes.set_ylabel("seconds")
        axes.set_xticks(sorted({100 * row.share for row in found}))
        axes.set_ylim(bottom=0)
        _quiet(axes, "both")
    labels = axes.get_legend_handles_labels()
    figure.legend(*labels, loc="outside upper center", ncols=6, frameon=False)
    return figure


def _curve(axes: Any, found: Sequence[Row], percentile: str) -> None:
    axes.plot(
        [100 * row.share for row in found],
        [getattr(row, percentile) for row in found],
        "o-",
        label=found[0].peer,
        color=COLOURS.get(found[0].peer, OTHERS),
        linewidth=2.4 if found[0].peer == DARKROOM else 1.6,
    )


def _quiet(axes: Any, grid: str) -> None:
    axes.grid(alpha=0.25, axis=grid)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
