"""One claim in flight: its tickets, what came out of the engine, and what it cost. Plain values."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from server.errors import (
    DarkroomError,
    DeadlineExceeded,
    GenerationFailed,
    InvalidSpec,
    OutOfMemory,
)
from server.forecast import Load
from server.spec import (
    AnySpec,
    Failure,
    GenerationState,
    Metrics,
    Progress,
    Quantization,
    Warn,
)
from server.workers.denoiser import Picture
from server.workers.engine import Ticket
from server.workers.stage import Claim, Ended, Phase, Result

NOTHING = Load()

LOSSLESS = frozenset({"prompt_chunked", "decoded_in_float32", "blank_picture"})
"""Warnings that only say how something was done, or what came of it."""


@dataclass(slots=True, eq=False)
class Flight:
    """From the claim until its result is told."""

    claim: Claim
    whole: Load = NOTHING
    """What it takes, as predicted when it came."""
    tickets: list[Ticket] = field(default_factory=list)
    """Empty until its inputs are there and its prompts encoded."""
    encode_began: float = 0.0
    encode_seconds: float = 0.0
    drawn_at: float = 0.0
    """When its last picture left the engine. As `encode_began` by the monotonic clock; 0: never."""
    pictures: dict[int, Picture] = field(default_factory=dict)
    over: bool = False
    """It has left the engine: drawn and being published, or ended otherwise."""

    @property
    def drawn(self) -> bool:
        """Whether all its pictures are there."""
        return len(self.pictures) == self.claim.spec.num_images

    @property
    def progress(self) -> Progress:
        """Steps over all its images."""
        return Progress(
            steps_done=sum(t.steps_done for t in self.tickets),
            steps_total=sum(t.state.steps_total for t in self.tickets),
        )

    @property
    def load(self) -> Load:
        """What it takes, with what is left of that."""
        return self.whole.left(1 - self.progress.fraction, self.claim.spec.num_images)

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """What its tickets warned of, each once."""
        return tuple(dict.fromkeys(w for t in self.tickets for w in t.state.warnings))

    def metrics(
        self,
        *,
        publish_seconds: float,
        at: float,
        peak_memory_bytes: int,
        worker: str,
        quantization: Quantization = Quantization.NONE,
    ) -> Metrics:
        """Where the time of its stage went. `at` is now, in seconds since the epoch."""
        steps = sum(t.steps_done for t in self.tickets)
        rows = sum(t.batch_rows for t in self.tickets)
        return Metrics(
            queue_seconds=self.claim.queue_seconds,
            encode_seconds=self.encode_seconds,
            denoise_seconds=max(t.denoise_seconds for t in self.tickets),
            decode_seconds=sum(t.decode_seconds for t in self.tickets),
            publish_seconds=publish_seconds,
            total_seconds=at - self.claim.queued_at,
            steps=steps,
            mean_batch_rows=rows / steps if steps else 0.0,
            peak_memory_bytes=peak_memory_bytes,
            worker=worker,
            quantization=quantization,
        )

    def traced(self, result: Result) -> Result:
        """The same, with what its trace tells of it, if there is one."""
        return result if self.claim.context is None else replace(result, phases=self._phases())

    def _phases(self) -> tuple[Phase, ...]:
        """What has happened of them until now. Decoding is put where it ended, as one piece: of
        several images, some may have been decoded while others were drawn."""
        now = time.monotonic()
        drawn = self.drawn_at or now
        encoded = self.encode_began + self.encode_seconds if self.encode_seconds else now
        admitted = max((t.admitted_at for t in self.tickets), default=0.0)
        decoding = sum(t.decode_seconds for t in self.tickets) if self.drawn_at else 0.0
        decode = max(admitted, drawn - decoding)
        marks = (
            ("encode", self.encode_began, encoded),
            ("denoise", admitted, decode),
            ("decode", self.drawn_at and decode, drawn),
            ("publish", self.drawn_at, now),
        )
        ago = time.time() - now
        return tuple(Phase(name, ago + a, ago + z) for name, a, z in marks if a)


def ended_by(error: Exception, spec: AnySpec) -> Ended:
    """What a caller is told. Foreign messages stay in the log: they may tell paths, and a device's
    own tell who else is on it."""
    if isinstance(error, OutOfMemory):
        error = OutOfMemory(
            f"{spec.width} x {spec.height} pixels do not fit the memory of this worker's device,"
            " even alone: ask for a smaller size"
        )
    if isinstance(error, DeadlineExceeded):
        return Ended(GenerationState.EXPIRED, Failure(code=error.code, message=error.message))
    if isinstance(error, DarkroomError):
        return Ended(GenerationState.FAILED, Failure(code=error.code, message=error.message))
    message = f"the worker could not draw it ({type(error).__name__}); its log has the details"
    failure = Failure(code=GenerationFailed.code, message=message)
    return Ended(GenerationState.FAILED, failure, fault=True)


def heed(strict: bool, warnings: Sequence[Warn]) -> None:
    """Let a strict generation fail of what another is only warned of.

    Raises:
        InvalidSpec: the first warning of something that was lost or replaced.
    """
    losses = [warning for warning in warnings if warning.code not in LOSSLESS]
    if strict and losses:
        raise InvalidSpec(losses[0].message, field=losses[0].field)
