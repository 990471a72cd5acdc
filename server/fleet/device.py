"""One worker's device, several steps at a time. It draws as `workers/engine.py` does, by the same
planner and a measured speed, and knows no clock: whoever owns it says what time it is.

As long as nobody joins, is done or rises by waiting, the planner chooses the same tickets again.
Such steps are a stretch, and are taken at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from server.forecast import Speed
from server.workers.planner import PATIENCE_SECONDS, Candidate, choose


@dataclass(slots=True, eq=False)
class Ticket:
    """One image. Times are simulated seconds."""

    generation: int
    bucket: Hashable
    rows: int
    pixels: int
    """Of one row."""
    left: int
    """Steps."""
    admitted_at: float = 0.0
    stepped_at: float = 0.0


@dataclass(slots=True)
class Tally:
    """What a device has done between two moments."""

    since: float = 0.0
    until: float = math.inf
    busy_seconds: float = 0.0
    step_seconds: float = 0.0
    """Of these, without decoding."""
    row_seconds: float = 0.0
    """The same, times the rows."""

    def add(self, began: float, stepped: float, ended: float, rows: int) -> None:
        """A stretch of so many rows, which stepped until then and decoded after that."""
        busy = min(ended, self.until) - max(began, self.since)
        stepping = min(stepped, self.until) - max(began, self.since)
        if busy > 0:
            self.busy_seconds += busy
        if stepping > 0:
            self.step_seconds += stepping
            self.row_seconds += stepping * rows


@dataclass(slots=True)
class Device:
    """Its tickets, and the stretch that it is in."""

    speed: Speed
    tally: Tally
    step_seconds: Callable[[int, int], float]
    """Of so many rows of so many pixels. Given, so that many devices can share a memory of it."""
    ends_at: float = math.inf
    """When the stretch is over, with the decoding of who is done then; never, while it is idle."""
    _tickets: list[Ticket] = field(default_factory=list)
    _joining: list[Ticket] = field(default_factory=list)
    _chosen: list[Ticket] = field(default_factory=list)
    _began: float = 0.0
    _seconds: float = 0.0
    """Of a step,"""
    _steps: int = 0
    """of which there are so many."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to step."""
        return self.ends_at == math.inf

    def admit(self, tickets: Iterable[Ticket]) -> None:
        """They take part from the next stretch on."""
        self._joining += tickets

    def interrupt(self, now: float) -> bool:
        """Ends the stretch with the step that is being taken; whether that changes anything."""
        steps = int((now - self._began) / self._seconds) + 1
        if steps >= self._steps:
            return False
        self._steps = steps
        self.ends_at = self._began + steps * self._seconds
        return True

    def end(self) -> list[Ticket]:
        """The stretch is over: who is done. Nothing is stepped until it begins again."""
        steps, now = self._steps, self.ends_at
        stepped = self._began + steps * self._seconds
        self.tally.add(self._began, stepped, now, sum([t.rows for t in self._chosen]))
        for ticket in self._chosen:
            ticket.left -= steps
            ticket.stepped_at = stepped
        done = [t for t in self._chosen if not t.left]
        if done:
            self._tickets = [t for t in self._tickets if t.left]
        self.ends_at = math.inf
        return done

    def begin(self, now: float) -> None:
        """The next stretch, if there is anything to step."""
        for ticket in self._joining:
            ticket.admitted_at = ticket.stepped_at = now
            self._tickets.append(ticket)
        self._joining.clear()
        if not self._tickets:
            return
        self._chosen, left_out = self._choose(now)
        first = self._chosen[0]
        rows = sum([t.rows for t in self._chosen])
        self._began = now
        self._seconds = self.step_seconds(rows, first.pixels)
        self._steps = self._alike(left_out, now)
        self.ends_at = now + self._steps * self._seconds + self._decoding()

    def _choose(self, now: float) -> tuple[list[Ticket], list[Ticket]]:
        """Who steps, and who does not."""
        tickets, most = self._tickets, self.speed.full_rows * self.speed.native_pixels
        buckets = {t.bucket for t in tickets}
        if len(buckets) == 1 and sum([t.rows * t.pixels for t in tickets]) <= most:
            return tickets, []  # as the planner would
        candidates = [
            Candidate(
                t.bucket, t.rows, t.pixels, now - t.admitted_at, now - t.stepped_at, 0, math.inf
            )
            for t in tickets
        ]
        chosen = set(choose(candidates, most))
        return (
            [t for i, t in enumerate(tickets) if i in chosen],
            [t for i, t in enumerate(tickets) if i not in chosen],
        )

    def _alike(self, left_out: list[Ticket], now: float) -> int:
        """Steps until somebody is done, or the planner might choose others."""
        steps = min([t.left for t in self._chosen])
        if not left_out:
            return steps
        # Who was raised steps and is not raised any more.
        if now - min([t.stepped_at for t in self._tickets]) >= PATIENCE_SECONDS:
            return 1
        patient = PATIENCE_SECONDS - (now - min([t.stepped_at for t in left_out]))
        return max(1, min(steps, math.ceil(patient / self._seconds)))

    def _decoding(self) -> float:
        pixels = sum([t.pixels for t in self._chosen if t.left == self._steps])
        return self.speed.decode_seconds * pixels / self.speed.native_pixels
