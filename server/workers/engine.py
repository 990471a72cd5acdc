"""Continuous batching, step by step. Knows tickets and steps; not torch, Redis or HTTP.

One turn is `choose → advance → preview → release`. Tickets join and leave between two turns. A
failure stays as small as it is: a ticket's own sampler fails the ticket; a failing UNet or
autoencoder call is tried again on halves of its batch until the ticket at fault is alone; a preview
that fails is left out. Only `DeviceLost` passes.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from server.errors import DeadlineExceeded, OutOfMemory
from server.workers.denoiser import Denoiser, Picture, State
from server.workers.planner import Candidate, choose

log = logging.getLogger("darkroom.engine")

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Ticket:
    """One image of a stage in the engine. Times are seconds of the engine's clock."""

    id: str
    index: int
    state: State
    priority: int
    deadline: float
    execution: str = ""
    admitted_at: float = 0.0
    stepped_at: float = 0.0
    steps_done: int = 0
    batch_rows: int = 0
    """Rows of all the UNet calls it took part in, added up."""
    denoise_seconds: float = 0.0
    decode_seconds: float = 0.0
    """Of its previews too."""
    previews: int = 0
    """How many of them came due."""

    @property
    def finished(self) -> bool:
        """Whether only decoding is left."""
        return self.steps_done >= self.state.steps_total


@dataclass(frozen=True, slots=True)
class Outcome:
    """What left the engine: a picture or the error that ended its ticket."""

    ticket: Ticket
    picture: Picture | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a ticket that goes on is expected to become."""

    ticket: Ticket
    number: int
    picture: Picture


@dataclass(frozen=True, slots=True)
class Step:
    """The facts of one turn."""

    rows: int = 0
    seconds: float = 0.0
    decode_seconds: float = 0.0
    previews: Sequence[Preview] = ()
    outcomes: Sequence[Outcome] = ()


@dataclass(slots=True)
class Engine:
    """All tickets in flight on one device. Not thread-safe: one thread owns it."""

    denoiser: Denoiser
    max_step_pixels: int
    max_decode_pixels: int = 4 * 2**20
    clock: Callable[[], float] = time.monotonic
    _tickets: list[Ticket] = field(default_factory=list)
    _step_seconds: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether there is anything to step."""
        return bool(self._tickets)

    @property
    def in_flight(self) -> int:
        """Tickets that are here."""
        return len(self._tickets)

    def admit(self, ticket: Ticket) -> None:
        """It takes part from the next step on."""
        ticket.admitted_at = ticket.stepped_at = self.clock()
        self._tickets.append(ticket)

    def drop(self, tickets: Iterable[Ticket]) -> None:
        """Let go of these, where they are still here; they have no outcome."""
        self._forget(tickets)

    def step(self) -> Step:
        """One UNet call for one bucket; says who took part and who left."""
        late = self._leave(t for t in self._tickets if self.clock() >= t.deadline)
        if not self._tickets:
            return Step(outcomes=late)
        began = self.clock()
        chosen = self._choose(began)
        failed = self._advance(chosen) if chosen else []
        seconds = self._charge(chosen, began)
        previews = self._preview()
        drawn = self._release()
        return Step(
            rows=sum(t.state.rows for t in chosen),
            seconds=seconds,
            decode_seconds=sum(o.ticket.decode_seconds for o in drawn),
            previews=previews,
            outcomes=[*late, *failed, *drawn],
        )

    def _choose(self, now: float) -> list[Ticket]:
        """None where all that is here takes no step at all, as image-to-image at strength 0."""
        waiting = [t for t in self._tickets if not t.finished]
        candidates = [
            Candidate(
                bucket=t.state.bucket,
                rows=t.state.rows,
                pixels=t.state.pixels,
                age=now - t.admitted_at,
                waited=now - t.stepped_at,
                priority=t.priority,
                slack=t.deadline - now - (t.state.steps_total - t.steps_done) * self._step_seconds,
            )
            for t in waiting
        ]
        return [waiting[i] for i in choose(candidates, self.max_step_pixels)]

    def _advance(self, chosen: list[Ticket]) -> list[Outcome]:
        failed = []
        predicted = self._halving(self.denoiser.predict, chosen, self._lower_step_cap)
        for ticket, prediction, error in predicted:
            if error is None:
                error = self._take_step(ticket, prediction)
            if error is not None:
                failed.append(Outcome(ticket, error=error))
        self._forget(o.ticket for o in failed)
        return failed

    def _take_step(self, ticket: Ticket, prediction: Any) -> Exception | None:
        try:
            self.denoiser.advance(ticket.state, prediction)
        except Exception as error:  # one ticket's sampler fails one ticket
            log.exception("a sampler step failed", extra={"generation": ticket.id})
            return error
        ticket.steps_done += 1
        return None

    def _charge(self, chosen: list[Ticket], began: float) -> float:
        now = self.clock()
        rows = sum(t.state.rows for t in chosen)
        for ticket in chosen:
            ticket.stepped_at = now
            ticket.batch_rows += rows
            ticket.denoise_seconds += now - began
        self._step_seconds = max(now - began, 0.9 * self._step_seconds)
        return now - began

    def _preview(self) -> list[Preview]:
        """Show what has just taken a step after which it is shown. A failure costs the preview
        alone; what is larger than a decode may be is left out."""
        due = [t for t in self._tickets if t.state.previews_due > t.previews]
        for ticket in due:
            ticket.previews = ticket.state.previews_due
        fitting = [t for t in due if t.state.pixels <= self.max_decode_pixels]
        decoded = self._decode(self.denoiser.preview, fitting)
        return [Preview(t, t.previews, picture) for t, picture, _ in decoded if picture is not None]

    def _release(self) -> list[Outcome]:
        finished = [t for t in self._tickets if t.finished]
        drawn = [Outcome(*each) for each in self._decode(self.denoiser.decode, finished)]
        self._forget(o.ticket for o in drawn)
        return drawn

    def _decode(
        self, call: Callable[[Sequence[Any]], Sequence[Picture]], tickets: list[Ticket]
    ) -> list[tuple[Ticket, Picture | None, Exception | None]]:
        """In batches of one shape and of bounded size."""
        by_bucket = defaultdict(list)
        for ticket in tickets:
            by_bucket[ticket.state.decode_bucket].append(ticket)
        decoded = []
        for alike in by_bucket.values():
            size = max(1, self.max_decode_pixels // alike[0].state.pixels)
            for first in range(0, len(alike), size):
                batch, began = alike[first : first + size], self.clock()
                decoded += self._halving(call, batch, self._lower_decode_cap)
                for ticket in batch:
                    ticket.decode_seconds += (self.clock() - began) / len(batch)
        return decoded

    def _halving(
        self,
        call: Callable[[Sequence[Any]], Sequence[T]],
        tickets: list[Ticket],
        lower_cap: Callable[[list[Ticket]], None],
    ) -> list[tuple[Ticket, T | None, Exception | None]]:
        """The device call for all, or on halves until those that fail are alone."""
        try:
            results = call([t.state for t in tickets])
            return [(t, result, None) for t, result in zip(tickets, results, strict=True)]
        except Exception as error:  # the batch shares the call, not the fault
            if len(tickets) == 1:
                log.exception("a device call failed", extra={"generation": tickets[0].id})
                return [(tickets[0], None, error)]
            if isinstance(error, OutOfMemory):
                lower_cap(tickets)
        # Not under `except`: the error holds on to all that the failed call had in memory.
        middle = len(tickets) // 2
        halves = tickets[:middle], tickets[middle:]
        return [each for half in halves for each in self._halving(call, half, lower_cap)]

    def _lower_step_cap(self, tickets: list[Ticket]) -> None:
        tried = sum(t.state.rows * t.state.pixels for t in tickets)
        self.max_step_pixels = min(self.max_step_pixels, tried // 2)
        log.warning("out of memory; a step now takes %d pixels at most", self.max_step_pixels)

    def _lower_decode_cap(self, tickets: list[Ticket]) -> None:
        tried = sum(t.state.pixels for t in tickets)
        self.max_decode_pixels = min(self.max_decode_pixels, tried // 2)
        log.warning("out of memory; a decode now takes %d pixels at most", self.max_decode_pixels)

    def _leave(self, late: Iterable[Ticket]) -> list[Outcome]:
        message = "its deadline passed while it was being drawn"
        outcomes = [Outcome(t, error=DeadlineExceeded(message)) for t in late]
        self._forget(o.ticket for o in outcomes)
        return outcomes

    def _forget(self, tickets: Iterable[Ticket]) -> None:
        gone = set(map(id, tickets))
        if gone:
            self._tickets = [t for t in self._tickets if id(t) not in gone]
