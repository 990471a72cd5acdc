"""What the OpenAPI document says of this door's bodies and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from server.api.forms import FORM
from server.api.negotiation import EVENT, EVENT_STREAM, JSON
from server.api.openai import examples
from server.api.openai.envelope import envelope
from server.errors import (
    BadRequest,
    BodyTooLarge,
    BrokerUnavailable,
    Canceled,
    DarkroomError,
    DeadlineExceeded,
    DeadlineUnmeetable,
    GenerationFailed,
    Gone,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSpec,
    NotFinite,
    NoWorker,
    OutOfMemory,
    Quarantined,
    QueueFull,
    QuotaExceeded,
    StillDrawing,
    StorageFull,
    TooManyStreams,
    UnknownCheckpoint,
    UnsupportedMediaType,
)
from server.spec import UPLOADED

REF = "#/components/schemas/{model}"

RAISED = (
    BadRequest,
    InvalidRequest,
    InvalidSpec,
    UnknownCheckpoint,
    Canceled,
    Gone,
    BodyTooLarge,
    UnsupportedMediaType,
    IdempotencyConflict,
    QueueFull,
    QuotaExceeded,
    DeadlineUnmeetable,
    TooManyStreams,
    StorageFull,
    GenerationFailed,
    OutOfMemory,
    NotFinite,
    Quarantined,
    NoWorker,
    StillDrawing,
    BrokerUnavailable,
    DeadlineExceeded,
)


def responses(
    good: Mapping[int, dict[str, Any]], *kinds: type[DarkroomError]
) -> dict[int | str, dict[str, Any]]:
    """How a route answers, by status: well, or with an error, each code with its example."""
    found: dict[int | str, dict[str, Any]] = dict(good.items())
    raised: list[type[DarkroomError]] = [*kinds, DarkroomError]
    for kind in raised:
        promise = (kind.__doc__ or kind.code).splitlines()[0]
        if kind is DarkroomError:
            promise = "Something went wrong on our side."
        status, body, _ = envelope(kind(promise))
        schema = {"$ref": REF.format(model=type(body).__name__)}
        answer = found.setdefault(status, {"description": promise, "content": {}})
        content = answer["content"].setdefault(JSON, {"schema": schema, "examples": {}})
        content["examples"][kind.code] = {"summary": promise, "value": body.model_dump()}
    return found


def good(description: str, example: Any) -> dict[str, Any]:
    """A success, with an example of it."""
    return {"description": description, "content": {JSON: {"example": example}}}


def images(kind: str) -> dict[int | str, dict[str, Any]]:
    """The answers of an operation whose events' names begin with `kind`."""
    shown = {"as themselves": examples.IMAGES, "as addresses": examples.BY_ADDRESS}
    stream = {"itemSchema": EVENT, "example": examples.events(kind)}
    answer = {
        "description": "The pictures; with `stream` the events that lead to them.",
        "content": {JSON: {"examples": _named(shown)}, EVENT_STREAM: stream},
    }
    return responses({200: answer}, *RAISED)


def body(
    model: type[BaseModel], bodies: Mapping[str, Any], *, form: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The part of an operation that says what its body is, as JSON and as a form."""
    schema = {"$ref": REF.format(model=model.__name__)}
    content: dict[str, Any] = {}
    if bodies:
        content[JSON] = {"schema": schema, "examples": _named(bodies)}
    if form is not None:
        content[FORM] = {"schema": _form(model), "example": form}
    return {"requestBody": {"required": True, "content": content}}


def _form(model: type[BaseModel]) -> dict[str, Any]:
    """The same fields, with files for pictures."""
    file = {"type": "string", "format": "binary", "description": "A PNG, JPEG or WebP file."}
    schema = model.model_json_schema(ref_template=REF)
    fields, required = schema["properties"], ["image", *schema.get("required", ())]
    files = dict.fromkeys(fields.keys() & {"mask", *UPLOADED}, file)
    shown = {name: schema for name, schema in (fields | files).items() if name != "images"}
    return {"type": "object", "required": required, "properties": shown}


def _named(bodies: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"summary": name, "value": value} for name, value in bodies.items()}
