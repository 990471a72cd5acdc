"""Who steps next. A pure function of plain values: no torch, no clock, no Redis."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

PATIENCE_SECONDS = 1.0
"""A ticket rises one priority level for each such time without a step, so nobody starves."""

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
    waited: float
    """Seconds since its last step, or since it was admitted."""
    priority: int
    slack: float
    """Seconds it can still lose and meet its deadline."""

    @property
    def level(self) -> int:
        """Its priority, raised by waiting and by a deadline that is close."""
        return self.priority + int(self.waited / PATIENCE_SECONDS) + (self.slack < PATIENCE_SECONDS)


def choose(candidates: Sequence[Candidate], max_step_pixels: int) -> list[int]:
    """Indices of the tickets of the next step: the first in line and its bucket-mates.

    In line are the highest level first, then the oldest. Mates join in that order while rows times
    pixels stay within the cap; the first steps even if it alone is over it.
    """
    line = sorted(
        range(len(candidates)), key=lambda i: (-candidates[i].level, -candidates[i].age, i)
    )
    chosen: list[int] = []
    room = max_step_pixels
    for i in line:
        ticket = candidates[i]
        cost = ticket.rows * ticket.pixels
        if not chosen or (ticket.bucket == candidates[chosen[0]].bucket and cost <= room):
            chosen.append(i)
            room -= cost
    return chosen


def worthwhile_rows(curve: Sequence[tuple[int, float]]) -> int:
    """The least row count from which on another row no longer pays.

    `curve` is step seconds by row count as measured. Every measure counts: where something else
    slowed one down, it is not the cheapest, and the larger ones still tell.
    """
    cheapest = min(seconds / rows for rows, seconds in curve)
    return min(rows for rows, seconds in curve if seconds / rows <= NEARLY * cheapest)
