"""Who steps next. A pure function of plain values: no torch, no clock, no Redis."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

PATIENCE = 4.0
"""A priority counts for one more each time its oldest ticket has been here for so many times as
long as the longest of all still needs, `MOST_SECONDS` at most. So nobody starves."""

CLOSE_SECONDS = 1.0
"""Before its deadline cannot be met any more, a ticket rises one priority level."""

LEAST_SECONDS, MOST_SECONDS = 1e-9, 10.0
"""What counts as left where nothing is; and of what a higher priority still needs, in how long a
lower one waits for it."""

NEARLY = 1.05
"""Rows that cost at most this much more than the cheapest are as good as those."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the planner knows of a ticket."""

    bucket: Hashable
    rows: int
    pixels: int
    """Of one row."""
    age: float
    """Seconds since it was admitted."""
    left: float
    """Seconds that it still needs by itself, as predicted."""
    priority: int
    slack: float
    """Seconds it can still lose and meet its deadline."""

    @property
    def impatience(self) -> float:
        """Its age as a multiple of what it still needs. It grows whether it steps or waits, the
        quicker the less it needs: what is small, or nearly done, is not held up for long, and what
        is large is not held up for ever."""
        return self.age / max(self.left, LEAST_SECONDS)

    @property
    def rank(self) -> int:
        """Its priority, raised by a deadline that is close."""
        return self.priority + (self.slack < CLOSE_SECONDS)


def choose(candidates: Sequence[Candidate], max_step_pixels: int) -> list[int]:
    """Indices of the tickets of the next step: of the bucket in which the most impatient is.

    Of one bucket the oldest are first, those of the rank whose turn it is before others. They join
    while rows times pixels stay within the cap; the first steps even if it alone is over it.
    """
    if not candidates:
        return []
    rank = _next_rank(candidates)
    leads = max((c for c in candidates if c.rank == rank), key=lambda c: c.impatience)
    mates = [i for i, each in enumerate(candidates) if each.bucket == leads.bucket]
    mates.sort(key=lambda i: (candidates[i].rank != rank, -candidates[i].rank, -candidates[i].age))
    chosen: list[int] = []
    room = max_step_pixels
    for i in mates:
        cost = candidates[i].rows * candidates[i].pixels
        if not chosen or cost <= room:
            chosen.append(i)
            room -= cost
    return chosen


def _next_rank(candidates: Sequence[Candidate]) -> int:
    """The highest, unless those of another have been here for very long."""
    longest = min(MOST_SECONDS, max(LEAST_SECONDS, *(each.left for each in candidates)))
    ages: dict[int, float] = {}
    for each in candidates:
        ages[each.rank] = max(each.age, ages.get(each.rank, 0.0))
    return max(ages, key=lambda rank: (rank + int(ages[rank] / (PATIENCE * longest)), rank))


def worthwhile_rows(curve: Sequence[tuple[int, float]]) -> int:
    """The least row count from which on another row no longer pays; so for pixels.

    `curve` is seconds of a call by row count as measured. Every measure counts: where something
    else slowed one down, it is not the cheapest, and the larger ones still tell.
    """
    cheapest = min(seconds / rows for rows, seconds in curve)
    return min(rows for rows, seconds in curve if seconds / rows <= NEARLY * cheapest)
