"""Continuous batching, step by step. Knows tickets and steps; not torch, Redis or HTTP.

One turn is `choose → advance → preview → release`. Tickets join and leave between two turns, and
of those that are done a turn decodes one batch. A failure stays as small as it is: a ticket's own
sampler fails the ticket, and so do latents that are no numbers any more; a failing UNet or
autoencoder call goes down the ladder until the ticket at fault is alone; a preview that fails is
left out. Only `DeviceLost` passes.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from server.errors import DarkroomError, DeadlineExceeded, OutOfMemory
from server.forecast import Speed
from server.workers.denoiser import Denoiser, Picture, State
from server.workers.ladder import RECOVERY_SECONDS, Bound, Ladder, Remedy
from server.workers.planner import Candidate, choose

log = logging.getLogger("darkroom.engine")

UNMEASURED_SECONDS = 1e-6
"""That a pixel of a row takes, where nobody has measured: who steps next is a matter of ratios."""


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
    pixels: int = 0
    """Of one row."""
    shallow: bool = False
    """It took less than so many rows take: what an earlier one found was used again."""
    seconds: float = 0.0
    decode_seconds: float = 0.0
    previews: Sequence[Preview] = ()
    outcomes: Sequence[Outcome] = ()
    remedies: Sequence[Remedy] = ()
    """For calls that did not fit the device."""


class Engine:
    """All tickets in flight on one device. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        denoiser: Denoiser,
        max_step_pixels: int,
        max_decode_pixels: int = 4 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.denoiser = denoiser
        self._clock = clock
        self._steps: Bound[Ticket] = Bound("a step", max_step_pixels, _rows_times_pixels, clock)
        self._decodes: Bound[Ticket] = Bound("a decode", max_decode_pixels, _pixels, clock)
        self._ladder = Ladder(denoiser.make_room)
        self._tickets: list[Ticket] = []
        self._step_seconds = 0.0
        self._speed: Speed | None = None
        self._did_not_fit: tuple[int, float] | None = None

    @property
    def max_step_pixels(self) -> int:
        """Rows times pixels that a step may take now."""
        return self._steps.pixels

    def allow(self, max_step_pixels: int) -> None:
        """A step may take so many from now on; fewer as long as those did not fit."""
        self._steps.allow(max_step_pixels)

    @property
    def max_decode_pixels(self) -> int:
        """Pixels that a decode may take now, as far as memory goes."""
        return self._decodes.pixels

    def adopt(self, speed: Speed) -> None:
        """What is left of a ticket is predicted by this now; so many are decoded at once."""
        self._speed = speed

    @property
    def too_large(self) -> int | None:
        """Pixels (`State.pixels`) of the smallest ticket that has not fitted the device even alone
        within the last `RECOVERY_SECONDS`. May be read on any thread."""
        last = self._did_not_fit
        return last[0] if last and self._clock() - last[1] < RECOVERY_SECONDS else None

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
        ticket.admitted_at = self._clock()
        self._tickets.append(ticket)

    def drop(self, tickets: Iterable[Ticket]) -> None:
        """Let go of these, where they are still here; they have no outcome."""
        self._forget(tickets)

    def step(self) -> Step:
        """One UNet call for one bucket; says who took part and who left."""
        for bound in (self._steps, self._decodes):
            bound.recover()
        late = self._leave(t for t in self._tickets if self._clock() >= t.deadline)
        if not self._tickets:
            return Step(outcomes=late)
        began = self._clock()
        chosen = self._choose(began)
        # Asked before they step: guidance may end with this one.
        rows = sum(t.state.rows for t in chosen)
        shallow = bool(chosen) and chosen[0].state.shallow
        failed = self._advance(chosen) if chosen else []
        seconds = self._charge(chosen, rows, began)
        previews = self._preview()
        drawn = self._release(released := self._clock())
        return Step(
            rows=rows,
            pixels=chosen[0].state.pixels if chosen else 0,
            shallow=shallow,
            seconds=seconds,
            decode_seconds=self._clock() - released,
            previews=previews,
            outcomes=[*late, *failed, *drawn],
            remedies=self._ladder.remedies(),
        )

    def _choose(self, now: float) -> list[Ticket]:
        """None where all that is here takes no step at all, as image-to-image at strength 0."""
        waiting = [t for t in self._tickets if not t.finished]
        candidates = [self._candidate(t, t.state.bucket, t.state.rows, now) for t in waiting]
        return [waiting[i] for i in choose(candidates, self._steps.pixels)]

    def _candidate(self, ticket: Ticket, bucket: Hashable, rows: int, now: float) -> Candidate:
        state, speed = ticket.state, self._speed
        steps = state.steps_total - ticket.steps_done
        left = UNMEASURED_SECONDS * state.pixels * (steps * state.rows + 1)
        decode = speed.decoding_seconds(1, state.pixels) if speed else 0.0
        return Candidate(
            bucket=bucket,
            rows=rows,
            pixels=state.pixels,
            age=now - ticket.admitted_at,
            left=speed.alone_seconds(steps, state.rows, state.pixels) if speed else left,
            # A shallow step takes little from others; then it is whole and shares theirs.
            priority=ticket.priority + state.shallow,
            slack=ticket.deadline - now - steps * self._step_seconds - decode,
        )

    def _advance(self, chosen: list[Ticket]) -> list[Outcome]:
        failed = []
        predicted = self._ladder.climb(self.denoiser.predict, chosen, self._steps)
        for ticket, prediction, error in predicted:
            if error is None:
                error = self._take_step(ticket, prediction)
            if error is not None:
                failed.append(Outcome(ticket, error=error))
        self._leave_with(failed)
        return failed

    def _take_step(self, ticket: Ticket, prediction: Any) -> Exception | None:
        try:
            self.denoiser.advance(ticket.state, prediction)
        except Exception as error:  # one ticket's sampler fails one ticket
            # A traceback is for our own faults; latents that are no numbers are the model's.
            ours = None if isinstance(error, DarkroomError) else error
            about = {"generation": ticket.id}
            log.warning("a sampler step failed: %s", error, exc_info=ours, extra=about)
            return error
        ticket.steps_done += 1
        return None

    def _charge(self, chosen: list[Ticket], rows: int, began: float) -> float:
        now = self._clock()
        for ticket in chosen:
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
        fitting = [t for t in due if t.state.pixels <= self._decodes.pixels]
        decoded = self._decode(self.denoiser.preview, fitting)
        return [Preview(t, t.previews, picture) for t, picture, _ in decoded if picture is not None]

    def _release(self, now: float) -> list[Outcome]:
        """One batch of those that are done; before the next one others step."""
        finished = [t for t in self._tickets if t.finished]
        candidates = [self._candidate(t, t.state.decode_bucket, 1, now) for t in finished]
        batch = [finished[i] for i in choose(candidates, self._decode_pixels)]
        drawn = [Outcome(*each) for each in self._decode(self.denoiser.decode, batch)]
        self._leave_with(drawn)
        return drawn

    @property
    def _decode_pixels(self) -> int:
        """That are decoded at once: as many as pays, if they fit."""
        paying = (self._speed and self._speed.decode_pixels) or self._decodes.pixels
        return min(paying, self._decodes.pixels)

    def _decode(
        self, call: Callable[[Sequence[Any]], Sequence[Picture]], tickets: list[Ticket]
    ) -> list[tuple[Ticket, Picture | None, Exception | None]]:
        """In batches of one shape and of bounded size."""
        by_bucket = defaultdict(list)
        for ticket in tickets:
            by_bucket[ticket.state.decode_bucket].append(ticket)
        decoded = []
        for alike in by_bucket.values():
            size = max(1, self._decode_pixels // alike[0].state.pixels)
            for first in range(0, len(alike), size):
                batch, began = alike[first : first + size], self._clock()
                decoded += self._ladder.climb(call, batch, self._decodes)
                for ticket in batch:
                    ticket.decode_seconds += (self._clock() - began) / len(batch)
        return decoded

    def _leave(self, late: Iterable[Ticket]) -> list[Outcome]:
        message = "its deadline passed while it was being drawn"
        outcomes = [Outcome(t, error=DeadlineExceeded(message)) for t in late]
        self._leave_with(outcomes)
        return outcomes

    def _leave_with(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome.error, OutOfMemory):
                pixels = outcome.ticket.state.pixels
                self._did_not_fit = min(self.too_large or pixels, pixels), self._clock()
        self._forget(o.ticket for o in outcomes)

    def _forget(self, tickets: Iterable[Ticket]) -> None:
        gone = set(map(id, tickets))
        if gone:
            self._tickets = [t for t in self._tickets if id(t) not in gone]


def _pixels(ticket: Ticket) -> int:
    return ticket.state.pixels


def _rows_times_pixels(ticket: Ticket) -> int:
    return ticket.state.rows * ticket.state.pixels
