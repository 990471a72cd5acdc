"""Errors as OpenAI's clients expect them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from server.api.openai.requests import SAID
from server.errors import (
    Canceled,
    DarkroomError,
    GenerationError,
    InvalidFields,
    QueueFull,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnknownCheckpoint,
)


class OpenAIError(BaseModel):
    """What is wrong. The SDKs choose their exception by the HTTP status."""

    message: str
    type: str = Field(description="`invalid_request_error`, `rate_limit_error` or `server_error`.")
    param: str | None = Field(description="The field at fault, where it is a matter of fields.")
    code: str = Field(
        description="As in the native API, but for `model_not_found` and `invalid_api_key`."
    )


class OpenAIFailure(BaseModel):
    """An error's whole body."""

    error: OpenAIError


def envelope(error: DarkroomError) -> tuple[int, BaseModel, dict[str, str]]:
    """Status, body and headers. The SDKs try again whatever is 409, 429 or 5xx, unless told."""
    status = _status(error)
    body = OpenAIFailure(
        error=OpenAIError(
            message="; ".join(_worded(*each) for each in error.errors) or error.message,
            type=_kind(status),
            param=_param(error.errors[0].field) if error.errors else None,
            code=_code(error),
        )
    )
    again = isinstance(error, Unavailable | TooManyRequests)
    return status, body, {"x-should-retry": "true" if again else "false"}


def _code(error: DarkroomError) -> str:
    if isinstance(error, Unauthenticated):
        return "invalid_api_key"
    return "model_not_found" if isinstance(error, UnknownCheckpoint) else error.code


def _param(field: str) -> str | None:
    if not field:  # it is the body itself
        return None
    # Which tasks there are depends on the model; this door has no field of that name.
    return "model" if field == "task" else SAID.get(field, field)


def _worded(field: str, message: str) -> str:
    """The same about the field that the caller knows."""
    if field not in SAID or not message.startswith(field):
        return message
    return SAID[field] + message.removeprefix(field)


def _status(error: DarkroomError) -> int:
    if isinstance(error, UnknownCheckpoint):
        return 404
    if isinstance(error, InvalidFields):
        return 400
    if isinstance(error, QueueFull):
        return 429
    if isinstance(error, GenerationError) and not isinstance(error, Canceled):
        return max(500, error.status)
    return error.status


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
