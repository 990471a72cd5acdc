"""Device calls whose batch shares the call, but neither its faults nor its hunger for memory.

    call ─▶ out of memory: make room, the same once more ─▶ lower the bound, halves ─▶ alone

Whatever else fails goes down to halves at once. Knows neither what is called nor torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from server.errors import OutOfMemory

log = logging.getLogger("darkroom.engine")

RECOVERY_SECONDS = 600.0
"""Of quiet, after which what was lowered for want of memory is believed in less: whoever else had
the memory may have left. A guess that is wrong costs one call that does not fit, and no picture."""


class Remedy(StrEnum):
    """What was done about a call that did not fit."""

    RETRIED = "retried"
    SPLIT = "split"
    FAILED = "failed"


class Held(Protocol):
    """A ticket, as far as it matters here."""

    @property
    def id(self) -> str:
        """Of its generation."""

    @property
    def state(self) -> Any:
        """What the call takes of it."""


Ticket = TypeVar("Ticket", bound=Held)
T = TypeVar("T")


@dataclass(slots=True)
class Bound(Generic[Ticket]):
    """Pixels that a call may take: lowered where it did not fit, doubled again in quiet."""

    what: str
    most: int
    size: Callable[[Ticket], int]
    clock: Callable[[], float]
    pixels: int = field(init=False)
    _lowered_at: float = 0.0

    def __post_init__(self) -> None:
        self.pixels = self.most

    def allow(self, most: int) -> None:
        """Another bound; what was lowered stays so until it has been quiet for long."""
        lowered, self.most = self.pixels < self.most, most
        self.pixels = min(self.pixels, most) if lowered else most

    def lower(self, tickets: Sequence[Ticket]) -> None:
        """Half of these is as much as may be tried."""
        self.pixels = min(self.pixels, sum(map(self.size, tickets)) // 2)
        self._lowered_at = self.clock()
        log.warning("out of memory; %s now takes %d pixels at most", self.what, self.pixels)

    def recover(self) -> None:
        """Twice as much, if it has been quiet for long."""
        if self.pixels < self.most and self.clock() - self._lowered_at >= RECOVERY_SECONDS:
            self.pixels = min(self.most, 2 * self.pixels)
            self._lowered_at = self.clock()
            log.info("%s may take %d pixels again", self.what, self.pixels)


@dataclass(slots=True)
class Ladder:
    """`make_room` lets go of what is kept on the device only to be quicker."""

    make_room: Callable[[], object]
    _remedies: list[Remedy] = field(default_factory=list)

    def remedies(self) -> Sequence[Remedy]:
        """What had to be done since this was asked."""
        done, self._remedies = self._remedies, []
        return done

    def climb(
        self,
        call: Callable[[Sequence[Any]], Sequence[T]],
        tickets: Sequence[Ticket],
        bound: Bound[Ticket],
        *,
        roomy: bool = False,
    ) -> list[tuple[Ticket, T | None, Exception | None]]:
        """The call for all of them, or for as many at a time as it takes.

        Args:
            roomy: all the room there is has been made.
        """
        full = None
        try:
            results = call([ticket.state for ticket in tickets])
            return [(t, result, None) for t, result in zip(tickets, results, strict=True)]
        except OutOfMemory as error:
            full = error.message
        except Exception as error:  # the batch shares the call, not the fault
            if len(tickets) == 1:
                log.exception("a device call failed", extra={"generation": tickets[0].id})
                return [(tickets[0], None, error)]
        # Not under `except`: the error holds on to all that the failed call had in memory.
        if full is None:
            return self._halves(call, tickets, bound, roomy)
        return self._with_less(call, tickets, bound, roomy, full)

    def _with_less(
        self,
        call: Callable[[Sequence[Any]], Sequence[T]],
        tickets: Sequence[Ticket],
        bound: Bound[Ticket],
        roomy: bool,
        full: str,
    ) -> list[tuple[Ticket, T | None, Exception | None]]:
        """What did not fit, once more where there is less beside it, or with less in it."""
        if not roomy:
            self._remedies.append(Remedy.RETRIED)
            log.warning("making room: %s", full, extra={"generation": tickets[0].id})
            self.make_room()
            return self.climb(call, tickets, bound, roomy=True)
        if len(tickets) == 1:
            self._remedies.append(Remedy.FAILED)
            log.error("does not fit, even alone: %s", full, extra={"generation": tickets[0].id})
            return [(tickets[0], None, OutOfMemory(full))]
        self._remedies.append(Remedy.SPLIT)
        bound.lower(tickets)
        return self._halves(call, tickets, bound, roomy)

    def _halves(
        self,
        call: Callable[[Sequence[Any]], Sequence[T]],
        tickets: Sequence[Ticket],
        bound: Bound[Ticket],
        roomy: bool,
    ) -> list[tuple[Ticket, T | None, Exception | None]]:
        middle = len(tickets) // 2
        halves = tickets[:middle], tickets[middle:]
        return [each for half in halves for each in self.climb(call, half, bound, roomy=roomy)]
