"""What a worker holds: its claims from the moment they are made until their end is written."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from server.workers.stage import Claim


@dataclass(slots=True)
class Held:
    """A claim of ours, until its end is written or it is somebody else's."""

    claim: Claim
    alone: bool
    ending: bool = False
    """Its result has come and is being written."""


class Holdings:
    """The claims in flight by their tokens, shared by the worker's threads. One that was lost, and
    the same generation claimed again, are two."""

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
        with self._lock:
            return set(self._held)

    def exclusive(self) -> bool:
        """Whether one of them must run alone."""
        with self._lock:
            return any(held.alone for held in self._held.values())

    def take(self, claim: Claim, *, alone: bool) -> None:
        """A new claim."""
        with self._lock:
            self._held[claim.execution] = Held(claim, alone)

    def end(self, claim: Claim) -> bool:
        """Its result has come. False if it is not ours any more, or has one already."""
        with self._lock:
            held = self._held.get(claim.execution)
            if held is None or held.ending:
                return False
            held.ending = True
            return True

    def unended(self, claim: Claim) -> bool:
        """Whether it is ours and has no result yet."""
        with self._lock:
            held = self._held.get(claim.execution)
            return held is not None and not held.ending

    def let_go(self, claim: Claim) -> bool:
        """It has ended, or is somebody else's. False if it was let go before."""
        with self._lock:
            return self._held.pop(claim.execution, None) is not None
