"""Reading a JSON body: what it is not, said in words. Knows HTTP; knows no cards and no queue."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from server.api.negotiation import JSON
from server.errors import BadRequest, FieldError, InvalidRequest, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)

LARGE = 2**17
"""Bytes that are parsed in less time than handing them to a thread would take."""

MAX_ERRORS = 20
"""So that a body of a thousand wrong fields gets an answer that a person can read."""


async def read_json(request: Request, model: type[M], *also: str) -> tuple[M, bytes]:
    """The body as `model` and as it was sent. `also` are other types that a caller reads.

    Raises:
        UnsupportedMediaType: it is not declared to be JSON.
        BadRequest: it is not JSON.
        InvalidRequest: it is, but not of this model; names each field that is wrong.
    """
    kind = declared_type(request)
    if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        named = f"not {kind[:80]}" if kind else "and Content-Type is missing"
        raise UnsupportedMediaType(f"the body must be {' or '.join((JSON, *also))}, {named}")
    # Not `request.body()`, which keeps it for as long as the client waits for its answer.
    body = b"".join([part async for part in request.stream()])
    if len(body) > LARGE:
        return await asyncio.to_thread(parsed, body, model), body
    return parsed(body, model), body


def declared_type(request: Request) -> str:
    """What `Content-Type` says, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parsed(body: bytes, model: type[M]) -> M:
    """A body as `model`. Raises as `read_json` does."""
    if not body.strip():
        raise BadRequest("the body is empty; send a JSON object")
    try:
        found = model.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error, model) from None
    # pydantic keeps the last of two equal names, so one of them would be dropped in silence.
    STRICT_JSON.decode(body.decode())
    return found


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counted.items() if count > 1)[:80]
        raise InvalidRequest(f"{twice}: is given more than once", field=twice)
    return fields


STRICT_JSON = json.JSONDecoder(object_pairs_hook=_unique)


def _refusal(error: ValidationError, model: type[BaseModel]) -> BadRequest | InvalidRequest:
    found = error.errors(include_url=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return BadRequest(f"the body is not JSON: {found[0]['ctx']['error']}")
    return InvalidRequest.of([in_words(e, model.model_fields) for e in found[:MAX_ERRORS]])


def in_words(error: Mapping[str, Any], known: Mapping[str, object]) -> FieldError:
    """One of pydantic's errors as a sentence; `known` are the names a stray one may have meant."""
    path = ".".join(str(part) for part in error["loc"])[:80]
    name = path or "the body"
    if error["type"] == "missing":
        return FieldError(path, f"{name}: is required")
    if error["type"] == "extra_forbidden":
        meant = difflib.get_close_matches(path, known, n=1)
        hint = f"; did you mean {meant[0]}?" if meant else ""
        return FieldError(path, f"{name}: there is no such field{hint}")
    if error["type"] == "model_type":
        return FieldError(path, f"{name}: must be a JSON object")
    said = str(error["msg"]).replace("Input should be", "must be").removeprefix("Value error, ")
    return FieldError(path, f"{name}: {said}")
