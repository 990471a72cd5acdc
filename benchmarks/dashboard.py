"""A picture of the dashboard for the documentation: python -m benchmarks.dashboard --out FILE

A real server of the demo checkpoint is used for some minutes, with a worker that is killed in the
middle, and scraped by a real Prometheus; then the dashboard's own queries are asked and drawn, each
panel where the dashboard has it. Not by Grafana, which draws in a style of its own: the picture
says so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.prometheus import DOCKER, Prometheus, free_port
from tests.system.conftest import Served

DASHBOARD = DOCKER / "grafana" / "dashboards" / "darkroom.json"
CAPTION = (
    "The panels and queries of docker/grafana/dashboards/darkroom.json with what a real Prometheus "
    "answered, drawn by benchmarks/dashboard.py; Grafana draws them in its own style."
)
COLOURS = {
    "green": "#73bf69",
    "super-light-green": "#c8f2c2",
    "yellow": "#e0b400",
    "orange": "#ff9830",
    "red": "#e02f44",
    "blue": "#5794f2",
}
PALETTE = ("#5794f2", "#73bf69", "#ff9830", "#b877d9", "#e0b400", "#37872d", "#8ab8ff", "#c4162a")
COLUMNS = 24
CELL_INCHES = 0.62, 0.36
FEW, MANY = 3, 48
"""Clients."""
WINDOW_SECONDS = 10
"""Over which a counter is looked at."""
POINTS = 200
PROMPTS = ("a red circle", "a yellow star on a blue background", "a green square")


class Traffic:
    """What clients ask for: little, more than can be drawn for a while, and little again."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._began, self._seconds = time.monotonic(), seconds
        self._dice = random.Random(1)

    def run(self) -> None:
        """Until the time is over; who was let in is waited for."""
        with ThreadPoolExecutor(MANY) as clients:
            list(clients.map(self._client, range(MANY)))

    def _client(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while (share := (time.monotonic() - self._began) / self._seconds) < 1:
                if number < FEW or 0.35 < share < 0.65:
                    self._ask(client)
                time.sleep(self._dice.expovariate(1.0))

    def _ask(self, client: httpx.Client) -> None:
        dice = self._dice
        body: dict[str, Any] = {"prompt": dice.choice(PROMPTS), "num_images": dice.choice((1, 2))}
        if dice.random() < 0.03:
            body["checkpoint"] = "sd-v1-5"  # nobody serves it
        if dice.random() < 0.2:
            body["hires"] = {"scale": 2}
        where = client.post("/v1/generations", json=body).headers.get("location")
        if where is None:
            return
        if dice.random() < 0.05:
            client.post(f"{where}/cancel")
        with client.stream("GET", f"{where}/events") as events:
            next((line for line in events.iter_lines() if line == "event: done"), None)


@contextmanager
def used(folder: Path, seconds: float) -> Iterator[Prometheus]:
    """A Prometheus that has seen it."""
    side_port = free_port()
    os.environ["DARKROOM_METRICS_PORT"] = str(side_port)
    served = Served(folder / "data", "--worker", "demo", "--worker", "demo")
    try:
        url = served.url
        prometheus = Prometheus(folder, side_port)
        killer = threading.Timer(seconds / 2, served.kill, ["worker 1"])
        killer.start()
        try:
            Traffic(url, seconds).run()
            yield prometheus
        finally:
            killer.cancel()
            prometheus.close()
    finally:
        served.stop()


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
        return f"{value / 2**30:.3g} GiB"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"
    return f"{value:.3g}{'/s' if unit == 'reqps' else unit.partition('suffix:')[2]}"


def colour_of(panel: Mapping[str, Any], legend: str, number: int) -> str:
    """As the panel says, else the next of the palette."""
    for override in panel["fieldConfig"]["overrides"]:
        matches = override["matcher"]["options"]
        if matches == legend or re.match(matches.strip("/"), legend):
            return COLOURS[override["properties"][0]["value"]["fixedColor"]]
    return PALETTE[number % len(PALETTE)]


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
    axes.text(0.5, 0.45, said, color="white", fontsize=15, weight="bold", ha="center", va="center")


def draw_graph(axes: Any, panel: Mapping[str, Any], prometheus: Prometheus, since: float) -> None:
    """Its series, stacked where the panel stacks them."""
    defaults = panel["fieldConfig"]["defaults"]
    bars = defaults["custom"]["drawStyle"] == "bars"
    seconds = time.time() - since
    step = WINDOW_SECONDS if bars else seconds / POINTS
    times = [since + number * step for number in range(int(seconds / step) + 1)]
    rows, names = series_of(panel, prometheus, times)
    colours = [colour_of(panel, name, number) for number, name in enumerate(names)]
    minutes = [(at - since) / 60 for at in times]
    if defaults["custom"]["stacking"]["mode"] == "normal" and rows:
        filled_in = [[0.0 if value != value else value for value in row] for row in rows]
        axes.stackplot(
            minutes,
            filled_in,
            labels=names,
            colors=colours,
            alpha=0.75,
            step="pre" if bars else None,
        )
    else:
        for row, name, colour in zip(rows, names, colours, strict=True):
            axes.plot(minutes, row, label=name, color=colour, linewidth=1.3)
    line = defaults["thresholds"]["steps"][-1]["value"]
    if line is not None:
        axes.axhline(line, color=COLOURS["red"], linestyle="--", linewidth=1)
    axes.set_ylim(0, defaults.get("max"))
    axes.set_xlim(0, minutes[-1])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    axes.yaxis.set_major_formatter(lambda value, _: words(value, defaults["unit"]))
    axes.yaxis.set_major_locator(_few())
    axes.xaxis.set_major_locator(_few())
    axes.tick_params(labelsize=6, length=2)
    axes.grid(color="#eeeeee")
    if names:
        axes.legend(fontsize=5.5, loc="upper left", ncols=2, frameon=False)


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


def draw(prometheus: Prometheus, since: float, out: Path) -> None:
    """The dashboard, each panel where it says."""
    from matplotlib.figure import Figure

    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(COLUMNS * CELL_INCHES[0], (height + 2) * CELL_INCHES[1]))
    figure.set_facecolor("#f4f5f5")
    for panel in panels:
        at = panel["gridPos"]
        left, top = at["x"] / COLUMNS, 1 - at["y"] / (height + 2)
        if panel["type"] == "row":
            place = left + 0.005, top - 0.6 / (height + 2)
            figure.text(*place, panel["title"], fontsize=11, weight="bold", va="center")
            continue
        side, below = (0.004, 0.2) if panel["type"] == "stat" else (0.036, 0.8)
        axes = figure.add_axes(
            (
                left + side,
                top - (at["h"] - below) / (height + 2),
                at["w"] / COLUMNS - side - 0.006,
                (at["h"] - below - 1.1) / (height + 2),
            )
        )
        axes.set_title(panel["title"], fontsize=7.5, loc="left", pad=3)
        if panel["type"] == "stat":
            draw_stat(axes, panel, prometheus)
        else:
            draw_graph(axes, panel, prometheus, since)
    figure.text(0.005, 0.6 / (height + 2), CAPTION, fontsize=6.5, color="#555555")
    figure.savefig(out, dpi=110)


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("dashboard.png"))
    parser.add_argument("--seconds", type=float, default=180.0, help="of use")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        since = time.time()
        with used(Path(folder), arguments.seconds) as prometheus:
            draw(prometheus, since, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
