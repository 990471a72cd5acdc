"""Every error Darkroom raises on purpose. Each knows its code and the HTTP status it answers with.

DarkroomError
├── RequestError                the caller can fix it
│   ├── BadRequest          400  not JSON, or not readable
│   ├── NotFound            404  no such thing, or not yours
│   ├── NotAcceptable       406  none of the formats asked for can be made
│   ├── Gone                410  it was here and has been deleted
│   ├── BodyTooLarge        413
│   ├── InvalidSpec         422  a field cannot be drawn; names the field
│   │   └── UnknownCheckpoint
│   └── IdempotencyConflict 422  the same key came with another body
├── Unavailable                 try again after `retry_after` seconds
│   ├── QueueFull           503
│   ├── NoWorker            503  nobody serves this checkpoint
│   └── BrokerUnavailable   503  Redis is away or refuses writes
├── CheckpointError         500  a checkpoint cannot be loaded; says which part
└── GenerationError         500  how a generation that was accepted can end
    ├── GenerationFailed         the engine could not draw it
    ├── OutOfMemory              it does not fit the device, even alone
    ├── NotFinite                the model produced NaN or infinity
    ├── Quarantined              it was in flight when several workers died
    └── DeadlineExceeded    504  it was not finished in time

DeviceLost is no DarkroomError: no handler may catch it by accident, the process must end.
"""

from __future__ import annotations

from typing import ClassVar


class DarkroomError(Exception):
    """Base of the tree. `message` is written for the person who will read it."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, field: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after


class RequestError(DarkroomError):
    """The caller can fix it."""

    code, status = "bad_request", 400


class BadRequest(RequestError):
    """The body is not what the content type says."""


class NotFound(RequestError):
    """No such thing, or it belongs to somebody else: the answer is the same."""

    code, status = "not_found", 404


class NotAcceptable(RequestError):
    """None of the media types in `Accept` can be produced."""

    code, status = "not_acceptable", 406


class Gone(RequestError):
    """It existed and has been deleted."""

    code, status = "gone", 410


class BodyTooLarge(RequestError):
    """The body passed the limit while it was being read."""

    code, status = "body_too_large", 413


class InvalidSpec(RequestError):
    """A field has a value that this checkpoint cannot draw."""

    code, status = "invalid_spec", 422


class UnknownCheckpoint(InvalidSpec):
    """The catalog has no card of this name."""

    code = "unknown_checkpoint"


class IdempotencyConflict(RequestError):
    """The same Idempotency-Key was used before with another body."""

    code, status = "idempotency_conflict", 422


class Unavailable(DarkroomError):
    """Nothing is wrong with the request; try again later."""

    code, status = "unavailable", 503


class QueueFull(Unavailable):
    """The queue of this checkpoint is at its bound."""

    code = "queue_full"


class NoWorker(Unavailable):
    """No worker of this checkpoint has been seen lately."""

    code = "no_worker"


class BrokerUnavailable(Unavailable):
    """Redis cannot be reached, or refuses writes; nothing was changed."""

    code = "broker_unavailable"


class CheckpointError(DarkroomError):
    """A checkpoint cannot be loaded."""

    code = "checkpoint_error"


class GenerationError(DarkroomError):
    """How an accepted generation can end without a picture."""

    code = "generation_failed"


class GenerationFailed(GenerationError):
    """The engine could not draw it; the worker's log has the generation id."""


class OutOfMemory(GenerationError):
    """The device has too little memory for it, even alone in its batch."""

    code = "out_of_memory"


class NotFinite(GenerationError):
    """The model produced NaN or infinity."""

    code = "not_finite"


class Quarantined(GenerationError):
    """It was in flight when several workers died, the last time alone."""

    code = "quarantined"


class DeadlineExceeded(GenerationError):
    """It was not finished within its `deadline_seconds`."""

    code, status = "deadline_exceeded", 504


class DeviceLost(BaseException):
    """The device cannot be used any more by this process; a new process must take over.

    Not an `Exception` on purpose: the handlers that keep a failure small must not eat it.
    """
