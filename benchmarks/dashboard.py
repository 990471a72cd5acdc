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
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.panels import DARK, draw_graph, draw_stat
from tests.deploy.prometheus import DOCKER, Prometheus, free_port
from tests.system.conftest import Served

DASHBOARD = DOCKER / "grafana" / "dashboards" / "darkroom.json"
CAPTION = (
    "The panels and queries of docker/grafana/dashboards/darkroom.json with what a real Prometheus "
    "answered, drawn by benchmarks/dashboard.py; Grafana draws them in its own style."
)
COLUMNS = 24
CELL_INCHES = 0.62, 0.36
FEW, MANY = 3, 48
"""Clients."""
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


def draw(prometheus: Prometheus, since: float, out: Path) -> None:
    """The dashboard, each panel where it says."""
    from matplotlib.figure import Figure

    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = 2 + max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(COLUMNS * CELL_INCHES[0], height * CELL_INCHES[1]))
    figure.set_facecolor("#f4f5f5")
    for panel in panels:
        at = panel["gridPos"]
        left, top = at["x"] / COLUMNS, 1 - at["y"] / height
        if panel["type"] == "row":
            place = left + 0.005, top - 0.6 / height
            figure.text(*place, panel["title"], fontsize=12, weight="bold", va="center")
            continue
        stat = panel["type"] == "stat"
        side, below = (0.005, 0.2) if stat else (0.042, 2.2)
        axes = figure.add_axes(
            (
                left + side,
                top - (at["h"] - below) / height,
                at["w"] / COLUMNS - side - (0.005 if stat else 0.012),
                (at["h"] - below - 1.0) / height,
            )
        )
        axes.set_title(panel["title"], fontsize=9, loc="left", pad=4, color=DARK)
        if stat:
            draw_stat(axes, panel, prometheus)
        else:
            draw_graph(axes, panel, prometheus, since)
    figure.text(0.005, 0.6 / height, CAPTION, fontsize=7, color="#555555")
    figure.savefig(out, dpi=110)


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
