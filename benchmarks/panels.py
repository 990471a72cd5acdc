"""One panel of the dashboard, drawn with what a Prometheus answers to its queries."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.deploy.prometheus import Prometheus

COLOURS = {
    "green": "#73bf69",
    "super-light-green": "#c8f2c2",
    "yellow": "#e0b400",
    "orange": "#ff9830",
    "red": "#e02f44",
    "blue": "#5794f2",
}
PALETTE = ("#5794f2", "#73bf69", "#ff9830", "#b877d9", "#e0b400", "#37872d", "#8ab8ff", "#c4162a")
PALE, DARK = "#d8d9da", "#333333"
BYTES = (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")
WINDOW_SECONDS = 10
"""Over which a counter is looked at."""
POINTS = 200
HEADROOM = 1.06
STEPS = (1, 2, 2.5, 5, 10)


def filled(query: str) -> str:
    """As Grafana sends it."""
    window = f"{WINDOW_SECONDS}s"
    query = query.replace("$__rate_interval", window).replace("$__interval", window)
    return query.replace("$checkpoint", "demo")


def legend_of(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """What a series is called."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), target["legendFormat"])


def words(value: float, unit: str) -> str:
    """A number as a person reads it."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "bytes":
        scale, name = next((each for each in BYTES if abs(value) >= each[0]), BYTES[-1])
        return f"{value / scale:.3g} {name}"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
    return f"{value:.3g}{'/s' if unit == 'reqps' else unit.partition('suffix:')[2]}"


def overrides_of(panel: Mapping[str, Any], legend: str) -> dict[str, Any]:
    """What the panel says of one series, by what it is about."""
    for override in panel["fieldConfig"]["overrides"]:
        matches = override["matcher"]["options"]
        if matches == legend or (matches[0] == "/" and re.match(matches.strip("/"), legend)):
            return {each["id"]: each["value"] for each in override["properties"]}
    return {}


def colour_of(panel: Mapping[str, Any], legend: str, number: int) -> str:
    """As the panel says, else the next of the palette."""
    said = overrides_of(panel, legend).get("color")
    return COLOURS[said["fixedColor"]] if said else PALETTE[number % len(PALETTE)]


def draw_stat(axes: Any, panel: Mapping[str, Any], prometheus: Prometheus) -> None:
    """A number on the colour of its threshold."""
    defaults = panel["fieldConfig"]["defaults"]
    found = prometheus.series(filled(panel["targets"][0]["expr"]))
    said, colour = defaults["noValue"], "#999999"
    if found:
        value = float(found[0]["value"][1])
        said = words(value, defaults["unit"])
        steps = defaults["thresholds"]["steps"]
        colour = [s["color"] for s in steps if s["value"] is None or value >= s["value"]][-1]
        colour = COLOURS[colour]
    axes.set_facecolor(colour)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.48, said, color="white", fontsize=17, weight="bold", ha="center", va="center")


def draw_graph(axes: Any, panel: Mapping[str, Any], prometheus: Prometheus, since: float) -> None:
    """Its series, stacked where the panel stacks them."""
    defaults = panel["fieldConfig"]["defaults"]
    bars = defaults["custom"]["drawStyle"] == "bars"
    seconds = time.time() - since
    step = WINDOW_SECONDS if bars else seconds / POINTS
    times = [since + number * step for number in range(int(seconds / step) + 1)]
    rows, names = series_of(panel, prometheus, times)
    minutes = [(at - since) / 60 for at in times]
    if defaults["custom"]["stacking"]["mode"] == "normal" and rows:
        plot_stack(axes, panel, minutes, rows, names, bars=bars)
    else:
        plot_lines(axes, panel, minutes, rows, names)
    scale(axes, defaults, minutes[-1])
    tell(axes, names)


def plot_stack(
    axes: Any,
    panel: Mapping[str, Any],
    minutes: Sequence[float],
    rows: Sequence[Sequence[float]],
    names: Sequence[str],
    *,
    bars: bool,
) -> None:
    """One above the other; where there is nothing, nothing."""
    axes.stackplot(
        minutes,
        [[0.0 if math.isnan(value) else value for value in row] for row in rows],
        labels=names,
        colors=[colour_of(panel, name, number) for number, name in enumerate(names)],
        alpha=0.75,
        linewidth=0,
        step="pre" if bars else None,
    )


def plot_lines(
    axes: Any,
    panel: Mapping[str, Any],
    minutes: Sequence[float],
    rows: Sequence[Sequence[float]],
    names: Sequence[str],
) -> None:
    """Each by itself, dashed where the panel says so, and the line of an alert."""
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        dashed = "custom.lineStyle" in overrides_of(panel, name)
        axes.plot(
            minutes,
            row,
            label=name,
            color=colour_of(panel, name, number),
            linestyle="--" if dashed else "-",
            linewidth=1.3,
        )
    line = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
    if line is not None:
        axes.axhline(line, color=COLOURS["red"], linestyle="--", linewidth=1)


def tell(axes: Any, names: Sequence[str]) -> None:
    """The legend, below, where it covers nothing, in as many columns as there is room for."""
    for columns in range(len(names), 0, -1):
        legend = axes.legend(
            fontsize=7,
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.12),
            borderaxespad=0,
            ncols=columns,
            frameon=False,
            handlelength=1.2,
            columnspacing=1.2,
            labelspacing=0.25,
            labelcolor=DARK,
        )
        if legend.get_window_extent().width <= axes.get_window_extent().width:
            return


def scale(axes: Any, defaults: Mapping[str, Any], minutes: float) -> None:
    """From nothing to a little more than there is, and few numbers along it."""
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    highest = max(axes.dataLim.y1, defaults["custom"].get("axisSoftMax", 0))
    top = HEADROOM * defaults.get("max", highest if highest > 0 else 1)
    axes.set_ylim(0, top)
    axes.set_xlim(0, minutes)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    axes.yaxis.set_major_formatter(lambda value, _: words(value, defaults["unit"]))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    whole = defaults.get("decimals") == 0
    few = MaxNLocator(4, integer=whole, min_n_ticks=2, steps=STEPS)
    power = MultipleLocator(2 ** math.ceil(math.log2(top / 4)))
    axes.yaxis.set_major_locator(power if defaults["unit"] == "bytes" else few)
    axes.tick_params(labelsize=7, length=0, colors=DARK)
    axes.grid(color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_color(PALE)


def series_of(
    panel: Mapping[str, Any], prometheus: Prometheus, times: Sequence[float]
) -> tuple[list[list[float]], list[str]]:
    """All that its queries answer, at these times, NaN where there is nothing."""
    rows, names = [], []
    step = times[1] - times[0]
    for target in panel["targets"]:
        asked = {"query": filled(target["expr"]), "start": times[0], "end": times[-1], "step": step}
        for series in prometheus.ask("query_range", **asked)["result"]:
            known = {round((float(at) - times[0]) / step): v for at, v in series["values"]}
            rows.append([float(known.get(number, "nan")) for number in range(len(times))])
            names.append(legend_of(target, series["metric"]))
    return rows, names
