"""Every error Darkroom raises on purpose. Each knows its code and the HTTP status it answers with.

DarkroomError
├── RequestError                the caller can fix it
│   ├── BadRequest          400  not JSON, or not readable
│   ├── Unauthenticated     401  no key, or one that is not good
│   ├── Forbidden           403  the key is good, but not for this
│   ├── CrossSite           403  a page of another site had a browser send it
│   ├── NotFound            404  no such thing, or not yours
│   ├── MethodNotAllowed    405
│   ├── NotAcceptable       406  none of the formats asked for can be made
│   ├── RequestTimeout      408  the client stopped sending it
│   ├── Gone                410  it was here; it was deleted, or kept for long enough
│   ├── BodyTooLarge        413
│   ├── UnsupportedMediaType 415 the body is not declared to be JSON
│   ├── HeadTooLarge        431
│   ├── InvalidFields            names each field that is wrong
│   │   ├── InvalidRequest  422  missing, unknown or of the wrong type
│   │   └── InvalidSpec     422  cannot be drawn
│   │       └── UnknownCheckpoint
│   ├── IdempotencyConflict 422  the same key came with another body
│   └── TooManyRequests          try again after `retry_after` seconds
│       ├── RateLimited     429  the key came too often within a minute
│       ├── TooManyStreams  429  of one owner
│       └── QuotaExceeded   429  the key has as much queued or drawn as it may
├── Unavailable                 try again after `retry_after` seconds
│   ├── QueueFull           503
│   ├── DeadlineUnmeetable  503  too much is ahead of it
│   ├── TooManyConnections  503  to this gateway
│   ├── NoWorker            503  nobody serves this checkpoint
│   ├── StorageFull         503  no room for more pictures
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


class Unauthenticated(RequestError):
    """No API key came with it, or one that is unknown, revoked or expired."""

    code, status = "unauthenticated", 401


class Forbidden(RequestError):
    """The API key is good, but lacks the scope or the checkpoint that this needs."""

    code, status = "forbidden", 403


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


class RequestTimeout(RequestError):
    """The client stopped sending it, or sent it too slowly."""

    code, status = "request_timeout", 408


class Gone(RequestError):
    """It existed, and was deleted or has been kept for as long as the server keeps things."""

    code, status = "gone", 410


class BodyTooLarge(RequestError):
    """The body passed the limit while it was being read."""

    code, status = "body_too_large", 413


class UnsupportedMediaType(RequestError):
    """Bodies are read as JSON only where `Content-Type` says that they are."""

    code, status = "unsupported_media_type", 415


class HeadTooLarge(RequestError):
    """The request line and the headers passed the limit while they were being read."""

    code, status = "head_too_large", 431


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


class TooManyRequests(RequestError):
    """Somebody asks for more than their share; it is there again after `retry_after` seconds."""

    code, status = "too_many_requests", 429


class RateLimited(TooManyRequests):
    """More requests within a minute than this API key, or this address without one, may send."""

    code = "rate_limited"


class QuotaExceeded(TooManyRequests):
    """The API key has as much queued, running or drawn today as it may have."""

    code = "quota_exceeded"


class TooManyStreams(TooManyRequests):
    """The owner has as many event streams open at this gateway as one may have."""

    code = "too_many_streams"


class Unavailable(DarkroomError):
    """Nothing is wrong with the request; try again later."""

    code, status = "unavailable", 503


class QueueFull(Unavailable):
    """The queue of this checkpoint is at its bound."""

    code = "queue_full"


class DeadlineUnmeetable(Unavailable):
    """So much is ahead of it that its deadline would pass."""

    code = "deadline_unmeetable"


class TooManyConnections(Unavailable):
    """This gateway has as many connections open as it may have."""

    code = "too_many_connections"


class NoWorker(Unavailable):
    """No worker of this checkpoint has been seen lately."""

    code = "no_worker"


class StorageFull(Unavailable):
    """The image store has too little room left to take more work; what was accepted goes on."""

    code = "storage_full"


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
