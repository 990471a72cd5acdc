"""What has happened to all clients of a run. Knows no HTTP and no locust."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.load.population import Door, Kind

Report = Callable[[str, str, float, str], None]
"""Told of each thing as it happens: door, name, seconds, and what was wrong, if anything."""


@dataclass(slots=True)
class Row:
    """All visits of one kind at one door."""

    seconds: list[float] = field(default_factory=list)
    """Of those that ended as they should, from being let in to the end."""
    refusals: int = 0
    failures: int = 0
    pictures: int = 0


def unheard(door: str, name: str, seconds: float, failure: str) -> None:
    """A report to nobody."""


class Book:
    """Kept by all clients of a run together."""

    def __init__(self, report: Report = unheard) -> None:
        self._report = report
        self._began = time.monotonic()
        self._last = self._began
        self.rows: dict[tuple[Door, Kind], Row] = defaultdict(Row)
        self.accepts: list[float] = []
        self.ratios: list[float] = []
        """What was taken over what was predicted."""
        self.returns = 0
        """How often somebody came back when they had been told to."""
        self.broken = 0
        """How often such a one was refused again."""
        self.failures: Counter[str] = Counter()
        self.seeds: set[int] = set()
        """Of all that was asked for."""

    def accepted(self, door: Door, seconds: float) -> None:
        """A generation was let in at a door that says so at once."""
        self.accepts.append(seconds)
        self._report(door, "accept", seconds, "")

    def refused(self, door: Door, kind: Kind, seconds: float) -> None:
        """It was said when to come back, which is no failure."""
        self.rows[door, kind].refusals += 1
        self._report(door, "refused", seconds, "")

    def returned(self, *, refused: bool) -> None:
        """Somebody came back when they had been told to."""
        self.returns += 1
        self.broken += refused

    def predicted(self, eta: float, took: float) -> None:
        """What a client was told, and how long it was."""
        self.ratios.append(took / eta)

    def ended(self, door: Door, kind: Kind, seconds: float, pictures: int) -> None:
        """As it should."""
        row = self.rows[door, kind]
        row.seconds.append(seconds)
        row.pictures += pictures
        self._last = time.monotonic()
        self._report(door, kind, seconds, "")

    def failed(self, door: Door, kind: Kind, seconds: float, why: str) -> None:
        """Not as it should."""
        self.rows[door, kind].failures += 1
        self.failures[f"{door}, {kind}: {why}"] += 1
        self._report(door, kind, seconds, why)

    @property
    def visits(self) -> int:
        """That came to an end."""
        return sum(len(row.seconds) + row.failures for row in self.rows.values())

    @property
    def refusals(self) -> int:
        """At all doors."""
        return sum(row.refusals for row in self.rows.values())

    @property
    def failure_percent(self) -> float:
        """Of all visits; all of them where there was none."""
        failures = sum(row.failures for row in self.rows.values())
        return 100 * failures / self.visits if self.visits else 100.0

    @property
    def pictures_a_second(self) -> float:
        """From the beginning until the last of them was there."""
        pictures = sum(row.pictures for row in self.rows.values())
        return pictures / max(self._last - self._began, 1e-9)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least that so many percent do not exceed; 0 where there are none."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[min(last, int(len(ordered) * percent / 100))] if ordered else 0.0
