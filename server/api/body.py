"""Reading a JSON body: what it is not, said in words. Knows HTTP; knows no cards and no queue."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from fastapi import Request
from pydantic import BaseModel, ValidationError

from server.api.negotiation import JSON
from server.errors import BadRequest, FieldError, InvalidRequest, UnsupportedMediaType
from server.spec import ADAPTER_NAME

M = TypeVar("M", bound=BaseModel)

LARGE = 2**17
"""Bytes that are parsed in less time than handing them to a thread would take."""

MOST_VALUES = 50_000
"""Commas and colons of a body; base64 has neither, and prompts that are drawn have far fewer."""

MAX_ERRORS = 20
"""So that a body of a thousand wrong fields gets an answer that a person can read."""


ALIKE = 0.8
"""Of difflib's ratio: a slip of the fingers, no other word."""

ELSEWHERE = {
    "batch_size": "num_images",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "clip_stop_at_last_layers": "clip_skip",
    "denoising_strength": "strength",
    "format": "output_format",
    "init_image": "image",
    "init_images": "image",
    "inpaint_full_res_padding": "padding_mask_crop",
    "mask": "mask_image",
    "model": "checkpoint",
    "n": "num_images",
    "n_iter": "num_images",
    "num_images_per_prompt": "num_images",
    "num_outputs": "num_images",
    "sampler_index": "sampler",
    "sampler_name": "sampler",
    "steps": "num_inference_steps",
}
"""What other servers call our fields."""

RULES = {
    ADAPTER_NAME: "must be a file's name of 1 to 128 characters, without a folder and with no dot "
    "in front"
}
"""Patterns in words."""


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
    expect_few_values(body)
    try:
        found = model.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error, model) from None
    # pydantic keeps the last of two equal names, so one of them would be dropped in silence.
    STRICT_JSON.decode(body.decode())
    return found


def expect_few_values(body: bytes) -> None:
    """Before it is parsed: each value that is wrong would become a sentence first.

    Raises:
        InvalidRequest: it holds more of them than anybody has to say.
    """
    if len(body) > MOST_VALUES and body.count(b",") + body.count(b":") > MOST_VALUES:
        raise InvalidRequest(f"the body holds more than the {MOST_VALUES:,} values that are read")


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
    return InvalidRequest.of([in_words(e, model) for e in found[:MAX_ERRORS]])


def in_words(error: Mapping[str, Any], model: type[BaseModel] | None = None) -> FieldError:
    """One of pydantic's errors as a sentence; `model` has the names a stray one may have meant."""
    path = ".".join(str(part) for part in error["loc"])[:80]
    name = path or "the body"
    if error["type"] == "missing":
        return FieldError(path, f"{name}: is required")
    if error["type"] == "extra_forbidden":
        return FieldError(path, f"{name}: there is no such field{_hint(error['loc'], model)}")
    if error["type"] == "model_type":
        return FieldError(path, f"{name}: must be a JSON object")
    if error["type"] == "string_pattern_mismatch":
        rule = RULES.get(error["ctx"]["pattern"], "is not of the right form")
        return FieldError(path, f"{name}: {rule}")
    said = str(error["msg"]).replace("Input should be", "must be").removeprefix("Value error, ")
    return FieldError(path, f"{name}: {said}")


def _hint(path: Sequence[str | int], model: type[BaseModel] | None) -> str:
    """The field that a stray one beside it may have meant."""
    for part in path[:-1]:
        if isinstance(part, str) and model is not None:
            model = next(_models(model.model_fields[part].annotation), None)
    known, stray = model.model_fields if model else {}, str(path[-1])
    translated = ELSEWHERE.get(stray.lower())
    if translated in known:
        return f"; here it is called {translated}"
    meant = difflib.get_close_matches(stray[:80], known, n=1, cutoff=ALIKE)
    return f"; did you mean {meant[0]}?" if meant else ""


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Those in an annotation such as `list[Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
