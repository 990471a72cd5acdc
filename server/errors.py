"""Every error Darkroom raises on purpose. Each knows its code and the HTTP status it answers with.

DarkroomError
├── RequestError                the caller can fix it
│   ├── BadRequest          400  not JSON, or not readable
│   ├── CrossSite           403  a page of another site had a browser send it
│   ├── NotFound            404  no such thing, or not yours
│   ├── MethodNotAllowed    405
│   ├── NotAcceptable       406  none of the formats asked for can be made
│   ├── Gone                410  it was here and has been deleted
│   ├── BodyTooLarge        413
│   ├── UnsupportedMediaType 415 the body is not declared to be JSON
│   ├── InvalidFields            names each field that is wrong
│   │   ├── InvalidRequest  422  missing, unknown or of the wrong type
│   │   └── InvalidSpec     422  cannot be drawn
│   │       └── UnknownCheckpoint
│   └── IdempotencyConflict 422  the same key came with another body
├── Unavailable                 try again after `retry_after` seconds
│   ├── QueueFull           503
│   ├── NoWorker            503  nobody serves this checkpoint
│   ├── StillDrawing        503  it takes longer than an answer is held back
│   └── BrokerUnavailable   503  Redis is away or refuses writes
├── CheckpointError         500  a checkpoint cannot be loaded; says which part
└── GenerationError         500  how a generation that was accepted can end
    ├── GenerationFailed         the engine could not draw it
    ├── OutOfMemory              it does not fit the device, even alone
    ├── NotFinite                the model produced NaN or infinity
    ├── Quarantined              it was in flight when several workers died
    ├── Canceled            409  somebody canceled it
    └── DeadlineExceeded    504  it was not finished in time

DeviceLost is no DarkroomError: no handler may catch it by accident, the process must end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self


class FieldError(NamedTuple):
    """What is wrong with one field. `field` is a path such as `width` or `loras.0.scale`."""

    field: str
    message: str


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

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """The fields at fault, each with its own sentence."""
        return (FieldError(self.field, self.message),) if self.field else ()


class RequestError(DarkroomError):
    """The caller can fix it."""

    code, status = "bad_request", 400


class BadRequest(RequestError):
    """The body is not what the content type says."""


class CrossSite(RequestError):
    """A page of another site had a browser send it; who opened that page need not know."""

    code, status = "cross_site", 403


class NotFound(RequestError):
    """No such thing, or it belongs to somebody else: the answer is the same."""

    code, status = "not_found", 404


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method; `Allow` names those it has."""

    code, status = "method_not_allowed", 405


class NotAcceptable(RequestError):
    """None of the media types in `Accept` can be produced."""

    code, status = "not_acceptable", 406


class Gone(RequestError):
    """It existed and has been deleted."""

    code, status = "gone", 410


class BodyTooLarge(RequestError):
    """The body passed the limit while it was being read."""

    code, status = "body_too_large", 413


class UnsupportedMediaType(RequestError):
    """Bodies are read as JSON only where `Content-Type` says that they are."""

    code, status = "unsupported_media_type", 415


class InvalidFields(RequestError):
    """Fields are wrong; says which and why, all of them at once."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self._errors = super().errors

    @classmethod
    def of(cls, errors: Sequence[FieldError]) -> Self:
        """One error about one or more fields."""
        error = cls("; ".join(message for _, message in errors), field=errors[0].field)
        error._errors = tuple(errors)
        return error

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """The fields at fault, each with its own sentence."""
        return self._errors


class InvalidRequest(InvalidFields):
    """A field is missing, unknown or of the wrong type."""

    code, status = "invalid_request", 422


class InvalidSpec(InvalidFields):
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


class StillDrawing(Unavailable):
    """It takes longer than an answer may be held back; asking again waits on."""

    code = "still_drawing"


class BrokerUnavailable(Unavailable):
    """Redis cannot be reached, or refuses writes; whether anything was changed is unknown."""

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


class Canceled(GenerationError):
    """It was canceled before it was finished."""

    code, status = "canceled", 409


class DeadlineExceeded(GenerationError):
    """It was not finished within its `deadline_seconds`."""

    code, status = "deadline_exceeded", 504


class DeviceLost(BaseException):
    """The device cannot be used any more by this process; a new process must take over.

    Not an `Exception` on purpose: the handlers that keep a failure small must not eat it.
    """
