"""Errors as RFC 9457 problem documents, or in the words of the dialect whose door was used. Routes
raise; only this file builds error answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from server.api.a1111 import envelope as a1111
from server.api.body import MAX_ERRORS, in_words
from server.api.negotiation import JSON
from server.api.openai import envelope as openai
from server.errors import (
    BadRequest,
    DarkroomError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    Unauthenticated,
    Unavailable,
)

PROBLEM_TYPE = "application/problem+json"

Envelope = Callable[[DarkroomError], tuple[int, BaseModel, dict[str, str]]]
DIALECTS: tuple[tuple[tuple[str, ...], Envelope], ...] = (
    (("/v1/images/", "/v1/models"), openai.envelope),
    (("/sdapi/", "/internal/"), a1111.envelope),
)
"""Beginnings of paths, and how an error is worded there."""


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="A path such as `width` or `loras.0.scale`, or a header's name.")
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it. `code` is stable; `detail` is for people and may change."""

    type: str = Field(description="A URI of the code; it identifies, it is not a page.")
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[FieldProblem, ...] = Field(
        (), description="The fields at fault, where it is a matter of fields."
    )


def problem(error: DarkroomError) -> Problem:
    """The document of an error."""
    return Problem(
        type=f"urn:darkroom:problem:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error.message,
        code=error.code,
        errors=tuple(FieldProblem(field=f, message=m) for f, m in error.errors),
    )


def error_response(
    path: str, error: DarkroomError, headers: dict[str, str] | None = None
) -> Response:
    """The answer an error gets at this path. What may work later says when."""
    headers = dict(headers or {})
    if error.retry_after is not None or isinstance(error, Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or 1)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RequestTimeout):
        headers["Connection"] = "close"  # what still comes belongs to this request
    for beginnings, envelope in DIALECTS:
        if path.startswith(beginnings):
            status, body, more = envelope(error)
            return Response(body.model_dump_json(), status, headers | more, media_type=JSON)
    return Response(problem(error).model_dump_json(), error.status, headers, PROBLEM_TYPE)


def every_error(root: type[DarkroomError] = DarkroomError) -> Iterator[type[DarkroomError]]:
    """The tree of errors, parents first."""
    yield root
    for child in root.__subclasses__():
        yield from every_error(child)


def error_of(code: str, message: str) -> DarkroomError:
    """The error that a record's failure stands for."""
    kind = next((kind for kind in every_error() if kind.code == code), DarkroomError)
    return kind(message)


def add_handlers(app: FastAPI) -> None:
    """One handler for what we raise, one for what FastAPI does, one for what the router does."""
    app.add_exception_handler(DarkroomError, _darkroom)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _router)


async def _darkroom(request: Request, error: Exception) -> Response:
    assert isinstance(error, DarkroomError)
    return error_response(request.url.path, error)


async def _validation(request: Request, error: Exception) -> Response:
    """Parameters of the path and the query; bodies are read by `body.read_json`."""
    assert isinstance(error, RequestValidationError)
    fields = [in_words(e | {"loc": e["loc"][1:]}) for e in error.errors()[:MAX_ERRORS]]
    return error_response(request.url.path, InvalidRequest.of(fields))


async def _router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    kinds: dict[int, DarkroomError] = {
        404: NotFound(f"there is nothing at {path}"),
        405: MethodNotAllowed(f"{path} does not answer to {request.method[:20]}"),
    }
    found = kinds.get(error.status_code, BadRequest(str(error.detail)))
    headers = {"Allow": _allowed(request)} if isinstance(found, MethodNotAllowed) else {}
    return error_response(path, found, headers)


def _allowed(request: Request) -> str:
    """Every method of the path: the router names those of the first route it met."""
    routes = [route for route in request.app.routes if isinstance(route, APIRoute)]
    path = request.url.path
    # One that is spelled out is no id, even where an id could be.
    here = [route for route in routes if route.path == path]
    here = here or [route for route in routes if route.path_regex.match(path)]
    return ", ".join(sorted({method for route in here for method in route.methods or ()}))
