"""A real Prometheus scrapes a real server with the rules that ship, and answers all that the
dashboard and the alerts ask."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from PIL import Image
from redis import Redis

from tests.deploy.monitoring import (
    ALERTS,
    checkpoints_query,
    each_alert,
    each_panel,
    filled,
    variable,
)
from tests.deploy.prometheus import Prometheus, free_port, program
from tests.system.conftest import Served


@dataclass(frozen=True, slots=True)
class Watched:
    """A server, the Prometheus that scrapes it, and how many generations were drawn."""

    served: Served
    prometheus: Prometheus
    drawn: int


EMPTY_WHILE_ALL_IS_WELL = {
    "did not fit the device",  # no label has a value before something did not fit
    "decoded again: blank or not finite",  # the same of blank pictures
    "free",  # of GPUs, and there is none
}
"""By their legends, queries that have nothing to show in a healthy system on a CPU."""
PICTURE = {"prompt": "a red circle", "num_inference_steps": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """After generations of several tasks were drawn, one was canceled and one refused."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    side_port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARKROOM_METRICS_PORT", str(side_port))
        served = Served(folder / "data")
    try:
        url = served.url
        bound_redis(served)
        prometheus = Prometheus(folder, side_port)
        try:
            yield Watched(served, prometheus, use(url, prometheus))
        finally:
            prometheus.close()
    finally:
        served.stop()


def bound_redis(served: Served) -> None:
    """As docker/redis.conf does; that of `darkroom serve` has no bound."""
    with Redis.from_url((served.data_dir / "redis" / "url").read_text()) as redis:
        redis.config_set("maxmemory", "1gb")


def use(url: str, prometheus: Prometheus) -> int:
    """What clients do; how many generations were drawn.

    A counter's first value is no increase, so of each kind there is one that is seen before the
    others come."""
    finished = 'sum(darkroom_generations_finished_total{state="succeeded"})'
    picture = png()
    bodies: list[dict[str, Any]] = [
        PICTURE,
        PICTURE | {"task": "image-to-image", "image": picture},
        PICTURE | {"task": "inpainting", "image": picture, "mask_image": picture},
        PICTURE | {"hires": {"scale": 2, "num_inference_steps": 2}},
    ]
    with httpx.Client(base_url=url, timeout=60) as client:
        for seen in (len(bodies), 2 * len(bodies)):
            for body in bodies:
                draw(client, body)
            cancel(client)
            refused = client.post("/v1/generations", json=PICTURE | {"checkpoint": "sd-v1-5"})
            assert refused.status_code == 503, refused.text
            prometheus.until(
                lambda seen=seen: prometheus.value(finished) == seen, f"{seen} are not counted"
            )
    return 2 * len(bodies)


def draw(client: httpx.Client, body: dict[str, Any]) -> None:
    """And wait for it."""
    answer = client.post("/v1/generations", json=body, headers={"Prefer": "wait=60"})
    assert answer.json().get("status") == "succeeded", answer.text


def cancel(client: httpx.Client) -> None:
    """One that is being drawn."""
    long = PICTURE | {"num_inference_steps": 150, "num_images": 4}
    where = client.post("/v1/generations", json=long).headers["location"]
    with client.stream("GET", f"{where}/events") as events:
        lines = events.iter_lines()
        next(line for line in lines if line == "event: progress")
        client.post(f"{where}/cancel")
        next(line for line in lines if line == "event: done")
        assert '"canceled"' in next(lines)


def png() -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.xdist_group("watched")
class TestPrometheus:
    """A real one, with the rules that ship."""

    def test_it_counts_what_clients_did(self, watched: Watched) -> None:
        counts = {
            "darkroom_generations_accepted_total": watched.drawn + 2,
            'darkroom_generations_finished_total{state="succeeded"}': watched.drawn,
            'darkroom_generations_finished_total{state="canceled"}': 2,
            'darkroom_generations_refused_total{code="no_worker"}': 2,
            "darkroom_generation_seconds_count": watched.drawn,
            'darkroom_workers{checkpoint="demo",state="ready"}': 1,
        }
        for metric, count in counts.items():  # the last scrape may have been too early for some
            total = f"sum({metric})"
            watched.prometheus.until(
                lambda total=total, count=count: watched.prometheus.value(total) == count, total
            )

    def test_every_alert_is_evaluated_and_none_fires(self, watched: Watched) -> None:
        def rules() -> list[dict[str, Any]]:
            groups = watched.prometheus.ask("rules")["groups"]
            return [rule for group in groups for rule in group["rules"]]

        evaluated = [alert["alert"] for alert in ALERTS]
        watched.prometheus.until(
            lambda: all(rule["health"] != "unknown" for rule in rules()), "rules are not evaluated"
        )
        assert [rule["name"] for rule in rules()] == evaluated
        assert [rule for rule in rules() if rule["health"] != "ok"] == []
        assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []

    @each_alert
    def test_every_expression_of_an_alert_is_answered(
        self, watched: Watched, alert: dict[str, Any]
    ) -> None:
        watched.prometheus.series(alert["expr"])

    @each_panel
    def test_every_panel_shows_something(self, watched: Watched, panel: dict[str, Any]) -> None:
        for target in panel["targets"]:
            query, legend = filled(target["expr"]), target.get("legendFormat")
            if target.get("instant"):
                watched.prometheus.until(
                    lambda query=query: math.isfinite(watched.prometheus.value(query)), query
                )
            elif legend in EMPTY_WHILE_ALL_IS_WELL:
                watched.prometheus.drawn(query)
            else:
                watched.prometheus.until(
                    lambda query=query: watched.prometheus.drawn(query), query, seconds=10
                )

    def test_the_dashboard_offers_the_checkpoints_that_are_served(self, watched: Watched) -> None:
        found = watched.prometheus.series(checkpoints_query())
        shown = [f"{json.dumps(each['metric'])}".replace('": "', '="') for each in found]
        pattern = variable("checkpoint")["regex"].strip("/")
        assert [re.findall(pattern, each) for each in shown] == [["demo"]]
