"""What a PromQL expression names: metrics, labels. Reads what our own files have, not all of the
language."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from server.metrics import GatewayMetrics, WorkerMetrics

GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\b(\{[^}]*\})?(?!\s*\()")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
RANGE = re.compile(r"\[[^]]*\]")
OPERATORS = {"or", "and", "unless", "bool"}

TARGET = frozenset({"job", "instance"})
"""What Prometheus adds to all that it scrapes."""
ITS_OWN = {
    "up": TARGET,
    "ALERTS": TARGET | {"alertname", "alertstate", "severity"},
    "process_start_time_seconds": TARGET | {"process"},
    "darkroom_process_up": TARGET | {"process"},
}
"""Of Prometheus, its client and `server/exposition.py`."""


def metrics_of(expression: str) -> dict[str, set[str]]:
    """Each metric that it names, with the labels that are asked of it in braces."""
    found: dict[str, set[str]] = {}
    for name, braces in SELECTOR.findall(RANGE.sub("", GROUPING.sub("", expression))):
        if name not in OPERATORS:
            found.setdefault(name, set()).update(MATCHER.findall(braces))
    return found


def grouped_by(expression: str) -> set[str]:
    """Labels that it groups by, or matches series on."""
    named = ",".join(GROUPING.findall(expression))
    return {label.strip() for label in named.split(",")} - {""}


class Keeper:
    """What a checkpoint says of itself, with nothing in it."""

    def caches(self) -> Mapping[str, Any]:
        return {"prompt": []}

    def memory_bytes(self) -> Mapping[str, int]:
        return {"unet": 0}


def declared() -> dict[str, set[str]]:
    """Each metric of `server/metrics.py`, as Prometheus knows its series, with its labels."""
    registry = CollectorRegistry()
    gateway, worker = GatewayMetrics(CollectorRegistry()), WorkerMetrics(registry)
    worker.watch(Keeper())
    found: dict[str, set[str]] = {}
    for metric in (*vars(gateway).values(), *vars(worker).values()):
        if isinstance(metric, MetricWrapperBase):
            [described] = metric.describe()
            for name, more in series(described.name, described.type):
                found[name] = set(metric._labelnames) | more
    samples = [sample for family in registry.collect() for sample in family.samples]
    for sample in samples:  # what is only made when it is read, too
        if sample.name.startswith("darkroom_") and not sample.name.endswith("_created"):
            found.setdefault(sample.name, set(sample.labels))
    return found


def series(name: str, kind: str) -> Iterator[tuple[str, set[str]]]:
    """The series that a metric has, with the labels that its kind adds."""
    if kind == "histogram":
        yield f"{name}_bucket", {"le"}
        yield f"{name}_sum", set()
        yield f"{name}_count", set()
    else:
        yield f"{name}_total" if kind == "counter" else name, set()
