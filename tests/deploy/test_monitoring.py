"""What docker/ has for Prometheus and Grafana: it names only what there is, says what it shows, and
is on the page for operators."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.files import ROOT, services
from tests.deploy.monitoring import (
    ALERTS,
    DASHBOARD,
    GRAFANA,
    PANELS,
    ROWS,
    checkpoints_query,
    each_alert,
    each_panel,
    filled,
    variable,
)
from tests.deploy.prometheus import DOCKER, program
from tests.deploy.promql import ITS_OWN, TARGET, declared, grouped_by, metrics_of

PAGE = (ROOT / "docs" / "operations.md").read_text()
METRICS = declared() | ITS_OWN
LINES = {
    "Longest wait": "DarkroomWaitsTooLong",
    "Redis": "DarkroomRedisSlow",
    "A step against its measure": "DarkroomSlowSteps",
}
"""Panels with a line, and the alert that fires beyond it."""
EXPRESSIONS = {
    **{alert["alert"]: alert["expr"] for alert in ALERTS},
    **{f"{p['title']} {t['refId']}": filled(t["expr"]) for p in PANELS for t in p["targets"]},
    "checkpoint": checkpoints_query(),
}
each_expression = pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)


@each_expression
def test_every_metric_that_is_asked_for_exists_with_its_labels(expression: str) -> None:
    named = metrics_of(expression)
    assert named.keys() <= METRICS.keys()
    known: set[str] = set()
    for metric, labels in named.items():
        its_own = METRICS[metric] | TARGET | {"process"}
        assert labels <= its_own, metric
        known |= its_own
    assert grouped_by(expression) <= known


@each_panel
def test_every_legend_names_a_label_that_is_left(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        named = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
        assert named <= grouped_by(target["expr"])


def test_what_is_asked_for_is_read_from_an_expression() -> None:
    asked = 'sum by (le) (rate(a_bucket{x="q",y=~"5.."}[5m]) * on (job) group_left (z) b) > 0'
    assert metrics_of(asked) == {"a_bucket": {"x", "y"}, "b": set()}
    assert grouped_by(asked) == {"le", "job", "z"}


def test_the_dashboard_answers_three_questions_in_this_order() -> None:
    assert ROWS[:3] == ["Is it healthy?", "Is it fast?", "What is it waiting for?"]
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "checkpoint",
        "only",
    ]


def test_the_dashboard_can_be_narrowed_to_series_with_any_label() -> None:
    only = variable("only")
    assert (only["type"], only["label"]) == ("adhoc", "Only")
    assert only["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_have_ids_and_names_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    for key in ("id", "title"):
        assert len({panel[key] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@each_panel
def test_every_panel_says_what_it_shows_in_which_unit_and_from_where(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    for asked in (panel, *panel["targets"]):
        assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize(("title", "name"), LINES.items())
def test_a_line_in_a_panel_is_where_its_alert_fires(title: str, name: str) -> None:
    [panel] = [panel for panel in PANELS if panel["title"] == title]
    [alert] = [alert for alert in ALERTS if alert["alert"] == name]
    line = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
    assert line == float(alert["expr"].rpartition(">")[2])


def test_redis_memory_has_a_line_where_its_alert_fires() -> None:
    [panel] = [panel for panel in PANELS if panel["title"] == "Redis' memory"]
    [alert] = [alert for alert in ALERTS if alert["alert"] == "DarkroomRedisNearlyFull"]
    [line] = [t["expr"] for t in panel["targets"] if t["legendFormat"] == "an alert from here on"]
    assert line.partition(" *")[0] == alert["expr"].rpartition("> ")[2]


def test_workers_are_counted_in_whole_numbers() -> None:
    for title in ("Workers", "In the queue", "Being drawn"):
        [panel] = [panel for panel in PANELS if panel["title"] == title]
        assert panel["fieldConfig"]["defaults"]["decimals"] == 0, title


def test_grafana_is_given_what_compose_mounts() -> None:
    volumes = [volume.split(":") for volume in services()["grafana"]["volumes"]]
    mounted = {inside: ROOT / outside for outside, inside, *_ in volumes}
    assert mounted["/etc/grafana/provisioning"] == GRAFANA / "provisioning"
    [provider] = provisioned("dashboards")["providers"]
    folder = mounted[provider["options"]["path"]]
    assert [path.name for path in folder.glob("*.json")] == ["darkroom.json"]


def test_grafana_asks_the_prometheus_of_compose_as_often_as_that_scrapes() -> None:
    [source] = provisioned("datasources")["datasources"]
    assert source["type"] == "prometheus"
    assert source["isDefault"]
    url = httpx.URL(source["url"])
    assert url.host in services()
    assert url.port == 9090
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def provisioned(what: str) -> dict[str, Any]:
    """The one file of a folder that Grafana reads when it starts."""
    [path] = (GRAFANA / "provisioning" / what).iterdir()
    return dict(yaml.safe_load(path.read_text()))


def test_prometheus_finds_everybody_by_names_that_compose_gives_them() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    named = [
        (name, dns["port"])
        for job in jobs.values()
        for dns in job.get("dns_sd_configs", ())
        for name in dns["names"]
    ]
    assert named == [("gateway", 9100), ("workers", 9100)]
    assert all("darkroom" in job for job in jobs if "dns_sd_configs" in jobs[job])
    assert "gateway" in services()
    for name, service in services().items():
        if name.startswith("worker"):
            assert "workers" in service["networks"]["metrics"]["aliases"], name


@each_alert
def test_every_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    said = alert["annotations"]
    assert said.keys() == {"summary", "description", "runbook"}
    assert said["description"].endswith(".")
    page, _, section = said["runbook"].partition("#")
    assert page in ("docs/operations.md", "docs/runbooks.md")
    assert section in anchors((ROOT / page).read_text())


@each_alert
def test_no_alert_tells_of_what_lasts_for_a_moment(alert: dict[str, Any]) -> None:
    lasting = re.findall(r"(?:increase|changes)\(.*\[(\d+)[mh]\]", alert["expr"])
    assert "for" in alert or lasting


@each_alert
def test_every_alert_is_on_the_page_and_has_a_test_in_which_it_fires(alert: dict[str, Any]) -> None:
    name, severity = alert["alert"], alert["labels"]["severity"]
    assert f"| `{name}` | {severity} |" in section_of(PAGE, "Alerts")
    fires = f'alertname="{name}",alertstate="firing"'
    assert fires in (DOCKER / "alerts_test.yml").read_text()


def test_every_metric_is_on_the_page_with_its_labels_and_no_other() -> None:
    rows = re.findall(
        r"^\| `(darkroom_\w+)` \| ([^|]*)\|", section_of(PAGE, "Metrics"), re.MULTILINE
    )
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    expected: dict[str, set[str]] = {}
    for name, labels in declared().items():
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        expected.setdefault(family, set()).update(labels - {"le"})
    assert len(told) == len(rows)
    assert told == expected | {"darkroom_process_up": {"process"}}


def anchors(page: str) -> set[str]:
    """Of its headings, as they are linked to."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section_of(page: str, heading: str) -> str:
    """What is below a heading of the second rank."""
    _, _, rest = page.partition(f"\n## {heading}\n")
    assert rest, heading
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=DOCKER, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
