"""What the queue hands to the studio, and what comes back. Plain values; no torch, no Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from server.forecast import Load, Speed
from server.spec import AnySpec, Failure, GenerationState, ImageInfo, Metrics, Progress, Warn
from server.stages import Stage
from server.tracing import Context


@dataclass(frozen=True, slots=True)
class Past:
    """What the stages before this one have left, in their order."""

    handed: Sequence[Sequence[str]] = ()
    """Where the store keeps what each made for the next, image by image."""
    metrics: Sequence[Metrics] = ()
    warnings: Sequence[Warn] = ()
    """With those of the acceptance."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One stage of a generation, claimed by this worker. Times are seconds since the epoch."""

    id: str
    execution: str
    """RQ's execution id and our fencing token: only its holder may finish the stage."""
    whole: AnySpec
    """Of the generation."""
    stage: Stage
    """What is to be drawn here."""
    created_at: float
    started_at: float
    queued_at: float
    """When it joined the queue of this stage."""
    following: Sequence[Stage] = ()
    """The stages after this one."""
    past: Past = Past()
    context: Context | None = None
    """Where its trace goes on, if there is one."""
    attempt: int = 1
    """Which try of this stage it is, counting deaths of workers and faults of ours."""
    waits_since: float | None = None
    """When it was last put into this stage's queue; None: as `queued_at`."""

    @property
    def spec(self) -> AnySpec:
        """Of this stage."""
        return self.stage.spec

    @property
    def deadline(self) -> float:
        """When it expires, in seconds since the epoch."""
        return self.created_at + self.whole.deadline_seconds

    @property
    def queue_seconds(self) -> float:
        """How long it waited in this stage's queue, by the clocks of two machines."""
        return max(0.0, self.started_at - self.queued_at)

    @property
    def number(self) -> int:
        """Which stage of the generation this is, from 0."""
        return len(self.past.handed)

    @property
    def handed(self) -> Sequence[str]:
        """Where the store keeps what the stage before made, one for each image."""
        return self.past.handed[-1] if self.past.handed else ()

    def overall(self, here: Progress) -> Progress:
        """How far the generation is, where this stage is so far."""
        before = sum(metrics.steps for metrics in self.past.metrics)
        after = sum(stage.expected_steps for stage in self.following)
        return Progress(
            steps_done=before + here.steps_done, steps_total=before + here.steps_total + after
        )


class Phase(NamedTuple):
    """A part of the time that a claim took. Seconds since the epoch."""

    name: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """Every image is in the store. `metrics` are this stage's, `phases` what its trace tells."""

    images: Sequence[ImageInfo]
    metrics: Metrics
    warnings: Sequence[Warn]
    phases: Sequence[Phase] = ()


@dataclass(frozen=True, slots=True)
class Handed:
    """What the next stage takes is in the store, one key for each image."""

    keys: Sequence[str]
    metrics: Metrics
    warnings: Sequence[Warn]
    phases: Sequence[Phase] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """It ended without pictures: failed, canceled or expired."""

    state: GenerationState
    error: Failure | None = None
    fault: bool = False
    """Of ours, not of the request: it may go well another time, or elsewhere."""
    phases: Sequence[Phase] = ()

    @property
    def code(self) -> str:
        """Of its error; empty where there is none."""
        return self.error.code if self.error else ""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the device is doing; nothing, unless it says otherwise."""

    images: int = 0
    """That are being denoised."""
    step_rows: int = 0
    """Of the step before this moment."""
    step_seconds: float = 0.0


Result = Drawn | Handed | Ended
Finish = Callable[[Claim, Result], None]


def state_after(result: Result) -> GenerationState:
    """In which a generation is once its stage has come to this."""
    match result:
        case Drawn():
            return GenerationState.SUCCEEDED
        case Handed():
            return GenerationState.QUEUED
        case Ended():
            return result.state


class Studio(Protocol):
    """Where claims are drawn. All methods may be called from any thread and return at once."""

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

    def discard(self, keys: Sequence[str]) -> None:
        """Remove these from the image store: nobody needs them any more."""

    def progress(self) -> Mapping[str, Progress]:
        """Where the stage of each claim stands that is being drawn, by generation id."""

    def speed(self) -> Speed | None:
        """What it has measured of itself."""

    def least_seconds(self, stage: Stage) -> float:
        """That it takes to draw a stage, if nothing goes wrong and nobody is beside it."""

    def load(self, more: Stage | None = None) -> Load:
        """What it has in hand, with `more` too."""

    def pulse(self) -> Pulse:
        """What is being drawn at this moment."""

    def step_age(self) -> float:
        """Seconds that the longest device call in progress has taken so far; 0 when none is."""

    def lost(self) -> BaseException | None:
        """What made the device unusable, if it is: the process must end."""

    def close(self, seconds: float) -> bool:
        """Stop the threads, abandon what is in flight; False if they have not ended in time."""
