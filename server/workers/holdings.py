"""What a worker holds: its claims from the moment they are made until their end is written."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from server.workers.leases import Verdict
from server.workers.stage import Claim


@dataclass(slots=True)
class Held:
    """A claim of ours, until its end is written or it is somebody else's."""

    claim: Claim
    alone: bool
    ending: bool = False
    """Its result has come and is being written."""
    canceling: bool = False
    """The studio has been told to stop drawing it."""


class Holdings:
    """The claims in flight, shared by the worker's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def claims(self) -> list[Claim]:
        """All of them: each needs its lease until its end is written."""
        with self._lock:
            return [held.claim for held in self._held.values()]

    def unfinished(self) -> list[Claim]:
        """Those without a result."""
        with self._lock:
            return [held.claim for held in self._held.values() if not held.ending]

    def executions(self) -> set[str]:
        """The tokens we hold."""
        return {claim.execution for claim in self.claims()}

    def exclusive(self) -> bool:
        """Whether one of them must run alone."""
        with self._lock:
            return any(held.alone for held in self._held.values())

    def take(self, claim: Claim, *, alone: bool) -> None:
        """A new claim."""
        with self._lock:
            self._held[claim.id] = Held(claim, alone)

    def end(self, claim: Claim) -> bool:
        """Its result has come. False if it is not ours any more, or has one already."""
        with self._lock:
            held = self._find(claim)
            if held is None or held.ending:
                return False
            held.ending = True
            return True

    def heed(self, claim: Claim, verdict: Verdict) -> bool:
        """Whether `verdict` is news that the studio must hear. The end of a claim that is being
        written looks like a loss, so it is none."""
        with self._lock:
            held = self._find(claim)
            if held is None or held.ending or verdict is Verdict.HELD:
                return False
            if verdict is Verdict.LOST:
                return True
            news, held.canceling = not held.canceling, True
            return news

    def let_go(self, claim: Claim) -> bool:
        """It has ended, or is somebody else's. False if it was let go before."""
        with self._lock:
            if self._find(claim) is None:
                return False
            del self._held[claim.id]
            return True

    def _find(self, claim: Claim) -> Held | None:
        held = self._held.get(claim.id)
        return held if held and held.claim.execution == claim.execution else None
