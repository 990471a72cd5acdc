"""The study as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.fairness.study import DEVICES, KINDS, RULES, SHARES, Drawn, Point, scene

COLOURS = {"small": "#3a86c8", "medium": "#58a55c", "large": "#b5543a"}
STYLES = dict(zip(RULES, ("--", "-"), strict=True))
FAINT = 0.25


def save(out: Path, found: Mapping[str, Sequence[Point]]) -> None:
    """Slow-downs against load for each device, and below who stepped when in a small scene."""
    figure = Figure((11, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 2))
    rows = above.subplots(1, len(found), sharey=True)
    for axes, (device, points) in zip(rows, found.items(), strict=True):
        _curves(axes, device, points)
    above.legend(*rows[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    device = "bound by arithmetic"
    below.suptitle(f"who steps: a large picture, and small ones that come later ({device})")
    for axes, (name, rule) in zip(below.subplots(1, 2), RULES.items(), strict=True):
        _scene(axes, name, scene(DEVICES[device], rule))
    figure.savefig(out, dpi=110)


def _curves(axes: Axes, device: str, points: Sequence[Point]) -> None:
    for kind in KINDS:
        for rule, style in STYLES.items():
            values = [p.p95 for p in points if (p.rule, p.kind) == (rule, kind.name)]
            label, loads = f"{kind.name}, {rule}", [100 * share for share in SHARES]
            axes.plot(loads, values, style, marker=".", color=COLOURS[kind.name], label=label)
    axes.set(title=device, xlabel="load, % of what it can draw", yscale="log")
    axes.set_yticks([1, 2, 3, 5, 10, 20, 30, 50])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    if device == next(iter(DEVICES)):
        axes.set_ylabel("latency over latency alone, p95")


def _scene(axes: Axes, rule: str, found: Drawn) -> None:
    for number, (arrival, ended) in enumerate(zip(found.arrivals, found.ended, strict=True)):
        colour = COLOURS[arrival.kind.name]
        axes.barh(number, ended - arrival.at, left=arrival.at, color=colour, alpha=FAINT)
        mine = [call for call in found.calls if number in call.numbers]
        starts, widths = [c.began for c in mine], [c.ended - c.began for c in mine]
        axes.barh(number, widths, left=starts, color=colour, height=0.6)
    axes.set(title=rule, xlabel="seconds", yticks=range(len(found.arrivals)), xlim=(0, 4))
    axes.set_yticklabels([arrival.kind.name for arrival in found.arrivals])
    axes.invert_yaxis()
