"""What docker/ has for Prometheus and Grafana, as data: alerts, panels, and their queries."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus import DOCKER

ALERTS = [
    rule
    for group in yaml.safe_load((DOCKER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
GRAFANA = DOCKER / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "darkroom.json").read_text())
ROWS = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def filled(query: str) -> str:
    """As Grafana sends it."""
    variables = {
        "checkpoint": "demo",
        "__interval": "20s",
        "__rate_interval": "20s",
        "__range": "1h",
    }
    for name, value in variables.items():
        query = query.replace(f"${name}", value)
    assert "$" not in query, query
    return query


def variable(name: str) -> dict[str, Any]:
    """Of the dashboard."""
    [found] = [each for each in DASHBOARD["templating"]["list"] if each["name"] == name]
    return dict(found)


def checkpoints_query() -> str:
    """What fills the variable `checkpoint`, without Grafana's word around it."""
    query = variable("checkpoint")["query"]["query"]
    return filled(query.removeprefix("query_result(").removesuffix(")"))
