"""What every route of this door shares: how bodies are read, who calls, and how it is described."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from server.api import openapi
from server.api.a1111.envelope import A1111Error, envelope
from server.api.a1111.settings import session_of
from server.api.body import LARGE, MAX_ERRORS, in_words
from server.api.negotiation import JSON
from server.errors import BadRequest, DarkroomError, InvalidRequest

M = TypeVar("M", bound=BaseModel)

MOST_VALUES = 2**15
"""Unknown fields are read, looked at and echoed: millions of them would take minutes."""


class DoorRoute(APIRoute):
    """Calls its endpoint with the request alone, and lets who calls be known again."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, with the caller's session in the request's state."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            request.state.session = session = await session_of(request)
            response = await endpoint(request)
            session.remember(response)
            return response

        return handle


def door(prefix: str = "/sdapi/v1") -> APIRouter:
    """A router of this door."""
    return APIRouter(prefix=prefix, tags=["a1111"], route_class=DoorRoute)


async def read_body(request: Request, model: type[M]) -> tuple[M, bytes]:
    """The body as A1111 reads it, whatever type it is declared to be, and its SHA-256: nobody
    should keep all of it for as long as the client waits for its answer.

    Raises:
        BadRequest: it is not JSON, or holds far too much of it.
        InvalidRequest: it is, but fields are of types that A1111 would refuse too.
    """
    # Not `request.body()`, which keeps it.
    body = b"".join([part async for part in request.stream()])
    if len(body) > LARGE:
        return await asyncio.to_thread(_parsed, body, model)
    return _parsed(body, model)


def _parsed(body: bytes, model: type[M]) -> tuple[M, bytes]:
    if body.count(b",") > MOST_VALUES:
        raise BadRequest(f"the body holds more than {MOST_VALUES:,} values")
    try:
        return model.model_validate(from_json(body or b"{}")), hashlib.sha256(body).digest()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
        raise InvalidRequest.of([in_words(each, model) for each in found]) from None
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


def answered(body: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A plain value as JSON."""
    return Response(to_json(body), headers=dict(headers or {}), media_type=JSON)


def documented(
    description: str, model: type[BaseModel], example: Any, *kinds: type[DarkroomError]
) -> dict[str, Any]:
    """How a route answers, for its decorator: well, or with an error as A1111 words it."""
    responses: openapi.Responses = {200: openapi.answer(description, example)}
    raised: list[type[DarkroomError]] = [*kinds, DarkroomError]
    for kind in raised:
        promise = (kind.__doc__ or kind.code).splitlines()[0]
        if kind is DarkroomError:
            promise = "Something went wrong on our side."
        status, body, _ = envelope(kind(promise))
        answer = responses.setdefault(status, {"description": promise, "content": {}})
        schema = {"$ref": openapi.REF.format(model=A1111Error.__name__)}
        content = answer["content"].setdefault(JSON, {"schema": schema, "examples": {}})
        example_of = {"summary": promise, "value": body.model_dump(mode="json")}
        content["examples"][kind.code] = example_of
    return {"response_model": model, "responses": responses}
