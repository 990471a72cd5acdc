"""One worker's device, several steps at a time. It draws as `workers/engine.py` does, by the same
planner and a measured speed, and knows no clock: whoever owns it says what time it is.

As long as nobody joins, is done or becomes more impatient than who steps, the planner chooses the
same tickets again. Such steps are a stretch, and are taken at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from server.forecast import Speed
from server.workers.planner import Candidate, choose


@dataclass(slots=True, eq=False)
class Ticket:
    """One image. Times are simulated seconds."""

    generation: int
    bucket: Hashable
    rows: int
    pixels: int
    """Of one row."""
    left: int
    """Steps; with none left it waits to be decoded."""
    admitted_at: float = 0.0


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
    """Of so many rows of so many pixels. Given, so that many devices can share a memory of it,"""
    decoding_seconds: Callable[[int, int], float]
    """and of so many pictures of so many pixels that are decoded together."""
    ends_at: float = math.inf
    """When the stretch is over, with the decoding of who is done then; never, while it is idle."""
    _tickets: list[Ticket] = field(default_factory=list)
    _joining: list[Ticket] = field(default_factory=list)
    _chosen: list[Ticket] = field(default_factory=list)
    _decoded: list[Ticket] = field(default_factory=list)
    """When the stretch ends."""
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
        if self._steps <= 1:
            return False
        steps = int((now - self._began) / self._seconds) + 1
        if steps >= self._steps:
            return False
        self._steps, self._decoded = steps, []  # nobody is done before the last step of a stretch
        self.ends_at = self._began + steps * self._seconds
        return True

    def end(self) -> list[Ticket]:
        """The stretch is over: who is decoded. Nothing is stepped until it begins again."""
        steps, now, done = self._steps, self.ends_at, self._decoded
        stepped = self._began + steps * self._seconds
        self.tally.add(self._began, stepped, now, sum([t.rows for t in self._chosen]))
        for ticket in self._chosen:
            ticket.left -= steps
        if done:
            self._tickets = [t for t in self._tickets if t.left or t not in done]
        self.ends_at = math.inf
        return done

    def begin(self, now: float) -> None:
        """The next stretch, if there is anything to step."""
        for ticket in self._joining:
            ticket.admitted_at = now
            self._tickets.append(ticket)
        self._joining.clear()
        if not self._tickets:
            return
        self._began, self._steps = now, 0
        stepping = [t for t in self._tickets if t.left]
        undone = [t for t in self._tickets if not t.left]
        self._chosen = self._first(stepping, now) if stepping else []
        if self._chosen:
            rows = sum([t.rows for t in self._chosen])
            self._seconds = self.step_seconds(rows, self._chosen[0].pixels)
            self._steps = 1 if undone else self._alike(stepping, now)
        stepped = now + self._steps * self._seconds
        undone += [t for t in self._chosen if t.left == self._steps]
        self._decoded, seconds = self._next_decoded(undone, stepped)
        self.ends_at = stepped + seconds

    def _first(self, tickets: list[Ticket], now: float) -> list[Ticket]:
        """Who steps, in the order in which the planner chose them."""
        most = self.speed.full_rows * self.speed.native_pixels
        buckets = {t.bucket for t in tickets}
        if len(buckets) == 1 and sum([t.rows * t.pixels for t in tickets]) <= most:
            return tickets  # as the planner would
        candidates = [self._candidate(t, t.rows, now) for t in tickets]
        return [tickets[i] for i in choose(candidates, most)]

    def _candidate(self, ticket: Ticket, rows: int, now: float) -> Candidate:
        age, left = now - ticket.admitted_at, self._left(ticket)
        return Candidate(ticket.bucket, rows, ticket.pixels, age, left, 0, math.inf)

    def _left(self, ticket: Ticket) -> float:
        step = self.step_seconds(ticket.rows, ticket.pixels)
        return ticket.left * step + self.decoding_seconds(1, ticket.pixels)

    def _alike(self, stepping: list[Ticket], now: float) -> int:
        """Steps until somebody is done, or the planner might choose others."""
        steps = min([t.left for t in self._chosen])
        bucket = self._chosen[0].bucket
        others = [t for t in stepping if t.bucket != bucket]
        if not others:
            return steps
        mates = [t for t in stepping if t.bucket == bucket]
        leads = max(mates, key=lambda t: (now - t.admitted_at) / self._left(t))
        step = self.step_seconds(leads.rows, leads.pixels) if leads in self._chosen else 0.0
        return max(1, min([steps, *(self._ahead(leads, step, other, now) for other in others)]))

    def _ahead(self, leads: Ticket, step: float, other: Ticket, now: float) -> int:
        """Steps until the other, which takes none, is more impatient than who leads, to whom each
        brings so many seconds; as many as that one has left, where it never is."""
        seconds = self._seconds
        age, left = now - leads.admitted_at, self._left(leads)
        others_age, others_left = now - other.admitted_at, self._left(other)
        # (age + k seconds) / (left - k step) against (others_age + k seconds) / others_left
        c = age * others_left - others_age * left
        b = seconds * (others_left - left) + others_age * step
        root = b * b - 4 * seconds * step * c
        if b >= 0 or root < 0:
            return leads.left
        return int(2 * c / (math.sqrt(root) - b))

    def _next_decoded(self, undone: list[Ticket], now: float) -> tuple[list[Ticket], float]:
        """Who is decoded then, and the seconds that it takes."""
        if not undone:
            return [], 0.0
        most = self.speed.decode_pixels
        if len(undone) > 1:
            most = most or sum([t.pixels for t in undone])
            candidates = [self._candidate(t, 1, now) for t in undone]
            undone = [undone[i] for i in choose(candidates, most)]
        return undone, self.decoding_seconds(len(undone), undone[0].pixels)
