"""The curves as pictures, where there is matplotlib."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu import crowd, rows
from benchmarks.gpu.report import SMOKE, Report

NAMES = {rows.PLOT: "rows", crowd.PLOT: "arrivals"}
"""What each plot's file ends with."""


def save(report: Report) -> list[Path]:
    """A file beside the report's for each plot; none where the report has no file or there is no
    matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    made = []
    for plot, lines in report.curves.items():
        if report.out is None or not any(lines.values()):
            continue
        figure = Figure((7.0, 4.5), layout="constrained")
        axes = figure.subplots()
        for line, points in lines.items():
            axes.plot(*zip(*points, strict=True), "o-", markersize=3, label=line)
        about = f"{report.about.get('name', '')}, torch {report.about.get('torch', '')}"
        axes.set(title=SMOKE if report.smoke else about, xlabel=_of(plot), ylabel=plot)
        if plot == rows.PLOT:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
        else:
            axes.axhline(crowd.BOUND_SECONDS, color="black", linestyle=":")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        made.append(report.out.with_name(f"{report.out.stem}-{NAMES[plot]}.png"))
        figure.savefig(made[-1], dpi=120)
    return made


def _of(plot: str) -> str:
    return "rows of a UNet call" if plot == rows.PLOT else "arrivals, as a share"
