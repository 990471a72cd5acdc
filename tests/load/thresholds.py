"""What a run is held to, and what it says in the end. Knows no HTTP and no locust."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.timing import Figure, at_most
from tests.load.book import Book, percentile
from tests.load.population import Door, Kind

LIKELY = 0.95


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The most that is allowed."""

    failures: float = 0.0
    """Percent of the visits that ended otherwise than they should."""
    accept: float = 0.5
    """Seconds, p95, until the native API has let somebody in."""
    broken: float = 5.0
    """Percent of those who came back as they were told and were refused again, beyond chance."""
    eta: float = 3.0
    """p95 of the seconds that a generation took over its `eta_seconds` when it was let in."""

    def figures(self, book: Book, left: Sequence[str]) -> list[Figure]:
        """Each beside its bar. `left`: generations that nobody has finished."""
        percent = 100 * book.broken / book.returns if book.returns else 0.0
        chance = by_chance(self.broken / 100, book.returns)
        return [
            at_most(
                "visits that did not end as they should",
                book.failure_percent,
                self.failures,
                "%",
                f"of {book.visits}" if book.visits else "nobody was served at all",
            ),
            at_most(
                "time to be let in, p95",
                1000 * percentile(book.accepts, 95),
                1000 * self.accept,
                "ms",
                f"of {len(book.accepts)}",
            ),
            at_most(
                "clients who came back as told and were refused again",
                book.broken,
                chance,
                "",
                f"of {book.returns}: {percent:.1f} %, {self.broken:g} % and what chance may add "
                f"are allowed; {book.refusals} refusals in all",
            ),
            at_most(
                "time taken over time predicted, p95",
                percentile(book.ratios, 95),
                self.eta,
                "x",
                f"of {len(book.ratios)}, median {percentile(book.ratios, 50):.2f}",
            ),
            at_most("generations left queued or running", len(left), 0, "", "; ".join(left[:5])),
        ]


def by_chance(share: float, count: int) -> int:
    """The most of so many that are to be expected where each is one with this probability; more
    would be there in less than one run of twenty."""
    if not 0 < share < 1:
        return count if share >= 1 else 0
    most, likely = -1, 0.0
    while likely < LIKELY:
        most += 1
        ways = math.lgamma(count + 1) - math.lgamma(most + 1) - math.lgamma(count - most + 1)
        likely += math.exp(ways + most * math.log(share) + (count - most) * math.log(1 - share))
    return most


def table(book: Book) -> str:
    """A line for each kind at each door."""
    lines = [
        f"{'door':<8}{'kind':<11}{'ended':>7}{'failed':>8}{'refused':>9}{'pictures':>10}"
        f"{'p50 s':>8}{'p95 s':>8}"
    ]
    for door, kind in itertools.product(Door, Kind):
        if (door, kind) not in book.rows:
            continue
        row = book.rows[door, kind]
        p50, p95 = (percentile(row.seconds, percent) for percent in (50, 95))
        lines.append(
            f"{door:<8}{kind:<11}{len(row.seconds):>7}{row.failures:>8}{row.refusals:>9}"
            f"{row.pictures:>10}{p50:>8.2f}{p95:>8.2f}"
        )
    return "\n".join([*lines, f"{book.pictures_a_second:.2f} pictures a second"])


def report(book: Book, figures: Sequence[Figure]) -> str:
    """The table, what went wrong, each figure, and the verdict in a sentence."""
    wrong = [f"{count} x {why}" for why, count in book.failures.most_common(20)]
    missed = [figure for figure in figures if not figure.met]
    verdict = [
        f"MISSED: {figure.name}: {figure.value:.3g} {figure.unit}".rstrip()
        + f", {figure.bar.rstrip()} is allowed"
        for figure in missed
    ]
    said = [str(figure) for figure in figures]
    return "\n".join(["", table(book), "", *wrong, *said, "", *(verdict or ["All thresholds met"])])
