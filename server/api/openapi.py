"""The OpenAPI document: what FastAPI cannot see because bodies and answers are handled by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server.api.a1111.envelope import A1111Error
from server.api.a1111.schemas import (
    ExtraBatchSent,
    ExtraSent,
    Options,
    PictureSent,
    PngSent,
    TaskSent,
    TextSent,
)
from server.api.examples import REQUESTS
from server.api.forms import BODY, FORM
from server.api.handlers import PROBLEM_TYPE, Problem, error_response, problem
from server.api.negotiation import JSON
from server.api.openai.envelope import OpenAIFailure
from server.api.openai.requests import EditRequest, ImagesRequest, VariationRequest
from server.api.recipes import ReplayRequest
from server.api.schemas import GenerationRequest
from server.api.scopes import NEEDED, PUBLIC
from server.api.tokenizers import TokenizeRequest
from server.errors import DarkroomError, Forbidden, RateLimited, Unauthenticated
from server.spec import UPLOADED

_FAILURES: dict[bool, type[BaseModel]] = {True: OpenAIFailure, False: A1111Error}
"""How the dialects word an error, by whether it is OpenAI's."""

SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`dr_…`, an API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The key as password, with any name: for A1111 clients.",
    },
}

Responses = dict[int | str, dict[str, Any]]

REF = "#/components/schemas/{model}"
UNSEEN: tuple[type[BaseModel], ...] = (
    GenerationRequest,
    ReplayRequest,
    TokenizeRequest,
    Problem,
    ImagesRequest,
    EditRequest,
    VariationRequest,
    OpenAIFailure,
    TextSent,
    PictureSent,
    Options,
    ExtraSent,
    ExtraBatchSent,
    PngSent,
    TaskSent,
    A1111Error,
)
"""Models that no route has in its signature."""

DESCRIPTION = """Darkroom draws pictures with Stable Diffusion.

Submit a generation with `POST /v1/generations`, then wait for it, follow its events or look at its
record. Errors are problem documents (RFC 9457) with a stable `code`.
"""
TAGS = [
    {"name": "generations", "description": "Submit, look, list, follow, cancel, delete."},
    {"name": "openai", "description": "The same, as OpenAI's clients ask for it."},
    {"name": "a1111", "description": "The same, as clients of the A1111 web UI ask for it."},
    {"name": "system", "description": "What can be asked for, and how long it would take."},
    {"name": "health", "description": "For the machines that look after this one."},
]


def responses(good: Mapping[int, dict[str, Any]], *kinds: type[DarkroomError]) -> Responses:
    """How a route answers, by status: well, or with an error, each code with its example."""
    responses: Responses = dict(good.items())
    raised: list[type[DarkroomError]] = [*kinds, DarkroomError]
    for kind in raised:
        promise = (kind.__doc__ or kind.code).splitlines()[0]
        if kind is DarkroomError:
            promise = "Something went wrong on our side."
        answer = responses.setdefault(kind.status, {"description": promise, "content": {}})
        content = answer["content"].setdefault(
            PROBLEM_TYPE, {"schema": {"$ref": REF.format(model="Problem")}, "examples": {}}
        )
        example = problem(kind(promise)).model_dump(mode="json")
        content["examples"][kind.code] = {"summary": promise, "value": example}
    return responses


def answer(description: str, example: Any, media_type: str = JSON) -> dict[str, Any]:
    """A success, with an example of it."""
    return {"description": description, "content": {media_type: {"example": example}}}


def body_of(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The part of an operation that says what its JSON body is."""
    schema = {"$ref": REF.format(model=model.__name__)}
    content = {JSON: {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def body_of_generation() -> dict[str, Any]:
    """The same of a generation, with an example of each task: as JSON, or as a form whose files
    are sent as they are."""
    schema = {"$ref": REF.format(model=GenerationRequest.__name__)}
    examples = {name: {"summary": name, "value": value} for name, value in REQUESTS.items()}
    file = {"type": "string", "format": "binary", "description": "A PNG, JPEG or WebP file."}
    form = {
        "type": "object",
        "required": [BODY],
        "properties": {BODY: schema, **dict.fromkeys(UPLOADED, file)},
    }
    sent = {BODY: {"task": "image-to-image", "prompt": "oil on canvas"}, "image": "(a file)"}
    content = {
        JSON: {"schema": schema, "examples": examples},
        FORM: {"schema": form, "example": sent},
    }
    return {"requestBody": {"required": True, "content": content}}


def header(name: str, description: str, example: str) -> dict[str, Any]:
    """A request header, as a parameter of an operation."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


class DocumentedApp(FastAPI):
    """FastAPI, with the models and answers it cannot see put into its document."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            _, unseen = models_json_schema(
                [(model, "validation") for model in UNSEEN], ref_template=REF
            )
            schemas |= unseen["$defs"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for route in self.routes:
                if isinstance(route, APIRoute) and route.include_in_schema:
                    for method in route.methods or ():
                        operation = document["paths"][route.path_format][method.lower()]
                        _correct(operation["responses"], route.responses)
                        if NEEDED[f"{method} {route.path}"] is not PUBLIC:
                            _guard(operation, route.path)
            document["components"]["securitySchemes"] = SCHEMES
        return super().openapi()


def _guard(operation: dict[str, Any], path: str) -> None:
    """Says which keys can be sent, and how it answers without a good one. A house that has no keys
    wants none."""
    operation["security"] = [{}, *({name: []} for name in SCHEMES)]
    for kind in (Unauthenticated, Forbidden, RateLimited):
        promise = (kind.__doc__ or kind.code).splitlines()[0]
        refusal = error_response(path, kind(promise, retry_after=None))
        told = operation["responses"].setdefault(
            str(refusal.status_code), {"description": promise, "content": {}}
        )
        media_type = str(refusal.media_type)
        model = Problem if media_type == PROBLEM_TYPE else _FAILURES[path.startswith("/v1/")]
        content = told["content"].setdefault(
            media_type, {"schema": {"$ref": REF.format(model=model.__name__)}, "examples": {}}
        )
        value = json.loads(bytes(refusal.body))
        content["examples"][kind.code] = {"summary": promise, "value": value}


def _correct(told: dict[str, Any], declared: Responses) -> None:
    """FastAPI claims its own 422 for every route with a parameter, which we never send, and
    drops what is null from examples."""
    if JSON in told.get("422", {}).get("content", {}) and "422" not in map(str, declared):
        del told["422"]
    for status, good in declared.items():
        for kind, content in good.get("content", {}).items():
            for name in ("example", "examples"):
                if name in content:
                    told[str(status)]["content"][kind][name] = content[name]
