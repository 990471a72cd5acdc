"""Clients of the OpenAI door: who waits for an answer, who reads a stream."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx

from tests.load.visitor import Failed, events
from tests.load.visits import Visit

PATH = "/v1/images/generations"


def draw(visit: Visit) -> int:
    """In one of two manners."""
    return visit.among((waits, reads))


def waits(visit: Visit) -> int:
    """For the answer."""
    answer = visit.let_in(lambda: visit.visitor.send("POST", PATH, **_request(visit))).json()
    return visit.pictures([base64.b64decode(each["b64_json"]) for each in answer["data"]])


def reads(visit: Visit) -> int:
    """A stream, to its end."""
    with _opened(visit) as stream:
        return visit.pictures(list(_completed(stream)))


def cancel(visit: Visit) -> int:
    """By the native API, while the stream is open; it then ends with an error."""
    with _opened(visit) as stream:
        record = visit.record(stream.headers["darkroom-generation-id"])
        if not visit.cancel(record):
            return visit.pictures(list(_completed(stream)))
        try:
            list(_completed(stream))
        except Failed as error:
            if not str(error).startswith("canceled"):
                raise
            return 0
    raise Failed("canceled, and the stream ended as if it were not")


def abandon(visit: Visit) -> int:
    """In the middle of a stream, or of the wait."""
    return visit.among((leaves_stream, leaves))


def leaves_stream(visit: Visit) -> int:
    """When it has just begun."""
    with _opened(visit) as stream:
        id = stream.headers["darkroom-generation-id"]
    return visit.deserted(visit.record(id))


def leaves(visit: Visit) -> int:
    """Before there is an answer."""
    left = httpx.Timeout(None, read=visit.moment())
    try:
        answer = visit.let_in(
            lambda: visit.visitor.send("POST", PATH, timeout=left, **_request(visit))
        ).json()
    except httpx.ReadTimeout:
        return visit.deserted(visit.found())
    return visit.pictures([base64.b64decode(each["b64_json"]) for each in answer["data"]])


def _request(visit: Visit, **more: Any) -> dict[str, Any]:
    order = visit.order
    body = {
        "model": order.checkpoint,
        "prompt": order.prompt,
        "size": f"{order.width}x{order.height}",
        "n": order.images,
        "num_inference_steps": order.steps,
        "seed": order.seed,
        "sampler": order.sampler,
        "response_format": "b64_json",
    }
    return {"json": body | more, "headers": {"Idempotency-Key": visit.key}}


def _opened(visit: Visit) -> closing[httpx.Response]:
    request = _request(visit, stream=True)
    return closing(visit.let_in(lambda: visit.visitor.open("POST", PATH, **request)))


def _completed(stream: httpx.Response) -> Iterator[bytes]:
    for _, name, data in events(stream):
        if name == "error":
            raise Failed(f"{data['error']['code']}: {data['error']['message']}")
        if name == "image_generation.completed":
            yield base64.b64decode(data["b64_json"])
