"""What the queue hands to the studio, and what comes back. Plain values; no torch, no Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.spec import Failure, GenerationState, ImageInfo, Metrics, Progress, TextToImage, Warn


@dataclass(frozen=True, slots=True)
class Claim:
    """One stage of a generation, claimed by this worker. Times are seconds since the epoch."""

    id: str
    execution: str
    """RQ's execution id and our fencing token: only its holder may finish the stage."""
    spec: TextToImage
    created_at: float
    started_at: float

    @property
    def deadline(self) -> float:
        """When it expires, in seconds since the epoch."""
        return self.created_at + self.spec.deadline_seconds


@dataclass(frozen=True, slots=True)
class Drawn:
    """Every image is in the store."""

    images: Sequence[ImageInfo]
    metrics: Metrics
    warnings: Sequence[Warn]


@dataclass(frozen=True, slots=True)
class Ended:
    """It ended without pictures: failed, canceled or expired."""

    state: GenerationState
    error: Failure | None = None


Result = Drawn | Ended
Finish = Callable[[Claim, Result], None]


class Studio(Protocol):
    """Where claims are drawn. All methods may be called from any thread and return at once,
    but for `admit`, which encodes the prompts first."""

    def start(self, finish: Finish) -> None:
        """Begin; `finish` is called on the studio's own threads and may block on Redis."""

    def room(self) -> int:
        """Images that can be admitted now; a claim of more is admitted when it is empty."""

    def admit(self, claim: Claim) -> None:
        """Start drawing; exactly one `finish` call follows unless the claim is abandoned."""

    def cancel(self, claim: Claim) -> None:
        """Stop drawing between two steps; `finish` is told, once, however often this is called."""

    def abandon(self, claim: Claim) -> None:
        """Stop drawing between two steps; it belongs to another worker, nobody is told."""

    def progress(self) -> Mapping[str, Progress]:
        """Where each claim stands that is being drawn, by generation id."""

    def pace(self) -> float:
        """Seconds of device time one generation has cost lately; 0 before the first."""

    def step_age(self) -> float:
        """Seconds that the longest device call in progress has taken so far; 0 when none is."""

    def lost(self) -> BaseException | None:
        """What made the device unusable, if it is: the process must end."""

    def close(self, seconds: float) -> bool:
        """Stop the threads, abandon what is in flight; False if they have not ended in time."""
