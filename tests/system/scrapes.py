"""What a gateway tells of its processes, as numbers, and how they grow while somebody is there."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.house import wait_until
from tests.system.test_serve import submit

PROMPT = "a red circle on a blue background"
PROBES = ("/metrics", "/healthz", "/readyz")

Named = tuple[str, frozenset[tuple[str, str]]]


def of(name: str, **labels: str) -> Named:
    """A metric, or the part of it that has these labels."""
    return f"darkroom_{name}", frozenset(labels.items())


class Scrape:
    """All that a gateway tells, of all processes together."""

    def __init__(self, text: str) -> None:
        self._values: defaultdict[Named, float] = defaultdict(float)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values[sample.name, frozenset(sample.labels.items())] += sample.value

    def __getitem__(self, metric: Named) -> float:
        name, labels = metric
        return sum(
            value for (each, has), value in self._values.items() if each == name and labels <= has
        )

    def requests(self) -> Counter[tuple[str, str, str]]:
        """Answers by route, method and status, but those to machines that look after it."""
        told: Counter[tuple[str, str, str]] = Counter()
        for (name, has), value in self._values.items():
            labels = dict(has)
            if name == "darkroom_http_requests_total" and labels["route"] not in PROBES:
                told[labels["route"], labels["method"], labels["status"]] += int(value)
        return told


class Visitor:
    """A client who keeps count, and what was told before it came."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.before = self.scrape()
        self.answers: Counter[tuple[str, str, str]] = Counter()
        client.event_hooks = {"response": [self._answered]}

    def scrape(self) -> Scrape:
        return Scrape(httpx.get(self.client.base_url.join("/metrics"), timeout=30).text)

    def grown(self, metric: Named) -> float:
        """Since it came."""
        return self.scrape()[metric] - self.before[metric]

    def expect(self, expected: Mapping[Named, float]) -> None:
        """That so much is counted. A count may come a moment after what it counts."""
        wrong: dict[Named, tuple[float, float]] = {}

        def counted() -> bool:
            now = self.scrape()
            wrong.clear()
            for metric, value in expected.items():
                grown = now[metric] - self.before[metric]
                if grown != pytest.approx(value):
                    wrong[metric] = grown, value
            return not wrong

        try:
            wait_until(counted, seconds=60)
        except AssertionError:
            raise AssertionError(f"it says, and should: {wrong}") from None

    def draw(self, **body: Any) -> dict[str, Any]:
        """One, to its end."""
        return self.ended(submit(self.client, {"prompt": PROMPT} | body))

    def ended(self, where: str) -> dict[str, Any]:
        """Its record, once all was heard of it."""
        lines: list[str] = []
        while "event: done" not in lines:
            with self.client.stream("GET", f"{where}/events") as events:
                lines = list(events.iter_lines())
        return dict(self.client.get(where).json())

    def told_of_all(self) -> bool:
        """Whether the gateway has counted each answer that was heard here, and no other."""
        return self.scrape().requests() - self.before.requests() == self.answers

    def _answered(self, answer: httpx.Response) -> None:
        path = re.sub("gen_[0-9a-f]{32}", "{id}", answer.request.url.path)
        route = re.sub(r"/images/\d+", "/images/{index}", path)
        self.answers[route, answer.request.method, str(answer.status_code)] += 1
