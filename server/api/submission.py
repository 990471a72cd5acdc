"""Submitting a generation: check it in full, queue it, and wait with the answer if asked to."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from server.api import openapi
from server.api.acceptance import accept, refusals_counted
from server.api.deps import Gateway, caller, gateway
from server.api.examples import QUEUED as QUEUED_EXAMPLE
from server.api.examples import RECORD as EXAMPLE
from server.api.forms import Sent, read_sent
from server.api.handlers import error_of, error_response
from server.api.images import read_image
from server.api.negotiation import JSON, accepted_format, idempotency_key, wait_seconds
from server.api.records import ROOT, GenerationRecord, address
from server.api.schemas import GenerationRequest
from server.api.usage import quota_headers
from server.broker import Generation, Idempotency, Replay
from server.catalog import Card
from server.errors import (
    BadRequest,
    BodyTooLarge,
    BrokerUnavailable,
    Canceled,
    DeadlineExceeded,
    DeadlineUnmeetable,
    GenerationFailed,
    Gone,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSpec,
    NotAcceptable,
    NotFinite,
    NoWorker,
    OutOfMemory,
    Quarantined,
    QueueFull,
    QuotaExceeded,
    StorageFull,
    UnknownCheckpoint,
    UnsupportedMediaType,
)
from server.spec import GenerationState, OutputFormat, Warn

ENDINGS = (GenerationFailed, OutOfMemory, NotFinite, Quarantined, Canceled, DeadlineExceeded)
REFUSALS = (
    BadRequest,
    NotAcceptable,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    InvalidSpec,
    UnknownCheckpoint,
    IdempotencyConflict,
    QueueFull,
    QuotaExceeded,
    DeadlineUnmeetable,
    StorageFull,
    NoWorker,
    BrokerUnavailable,
    Gone,
    *ENDINGS,
)
"""What a request to draw can be answered with, natively."""


class DirectRoute(APIRoute):
    """Calls its endpoint with the request and nothing else. On this path FastAPI's injection
    would cost more than checking the spec does."""

    def __init__(
        self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **options: Any
    ) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            answer = await endpoint(Request(scope, receive, send))
            await answer(scope, receive, send)

        self.app = app


router = APIRouter(prefix=ROOT, tags=["generations"], route_class=DirectRoute)

HEADERS = [
    openapi.header(
        "Prefer",
        "`wait=SECONDS` holds the answer back until the generation is terminal or the time is up.",
        "wait=30",
    ),
    openapi.header(
        "Idempotency-Key",
        "Sent again with the same body, it answers with the first generation; nothing is drawn.",
        "3f1c9f0e-order-81",
    ),
    openapi.header(
        "Accept",
        "image/png, image/webp or image/jpeg answer with the bytes of the first image, or of the "
        "grid of a sweep; without `Prefer: wait` such a request waits as long as the server "
        "allows.",
        JSON,
    ),
]
_SUBMIT: dict[str, Any] = openapi.body_of_generation()
_SUBMITTED: dict[int, dict[str, Any]] = {
    200: openapi.answer("It ended within the time waited.", EXAMPLE),
    202: openapi.answer("It is queued or being drawn; `Location` is its record.", QUEUED_EXAMPLE)
    | {"model": GenerationRecord},
}


@router.post(
    "",
    summary="Submit a generation",
    operation_id="create_generation",
    response_model=GenerationRecord,
    responses=openapi.responses(
        _SUBMITTED,
        *REFUSALS,
    ),
    openapi_extra=_SUBMIT | {"parameters": HEADERS},
)
async def create_generation(request: Request) -> Response:
    """Check a generation in full, then queue it.

    Nothing is queued where this refuses, but for `broker_unavailable`: then the outcome is unknown,
    and asking again is safe with an Idempotency-Key only.
    """
    gate, owner = await gateway(request), await caller(request)
    with refusals_counted(gate):
        sent = await read_sent(request, gate.max_body_bytes)
        queued = await submitted(request, gate, owner, sent)
    return await answered(request, gate, owner, queued)


class Queued(NamedTuple):
    """What came of a request."""

    generation: Generation
    made: bool
    """Now; not by an earlier request with the same Idempotency-Key."""
    form: OutputFormat | None
    """Of the picture to answer with."""


async def answered(request: Request, gate: Gateway, owner: str, queued: Queued) -> Response:
    """The record, or the picture, at once or as late as the request prefers."""
    generation, made, form = queued
    headers = {"Location": address(generation.id)} | quota_headers(gate.account, generation.share)
    if not made:
        headers["Idempotent-Replayed"] = "true"
    if (seconds := _patience(request, gate, form)) is not None:
        headers["Preference-Applied"] = f"wait={seconds:g}"
        # Accepted is accepted: an outage while waiting must not look like a refusal.
        with contextlib.suppress(BrokerUnavailable):
            generation = await gate.broker.wait(generation.id, owner=owner, seconds=seconds)
    if form is not None and generation.terminal:
        return await _picture(gate, generation, headers)
    record = await gate.record(generation)
    return Response(
        record.model_dump_json(), 200 if generation.terminal else 202, headers, media_type=JSON
    )


async def submitted(
    request: Request,
    gate: Gateway,
    owner: str,
    sent: Sent,
    *,
    noted: Sequence[Warn] = (),
    replay: Replay | None = None,
) -> Queued:
    """What was sent, queued as the headers ask for; the rest is as in `accept`.

    Raises:
        DarkroomError: as `accept`.
    """
    asked, body, card = sent.asked, sent.body, gate.card(sent.asked.checkpoint)
    liked = ",".join(request.headers.getlist("accept"))
    form = accepted_format(liked, _formats(asked, card))
    if form is not None:
        asked = asked.model_copy(update={"output_format": form})
        body += form.encode()  # another picture format is another request
    key = _idempotency(request, body)
    generation, made = await accept(
        gate, owner, asked, sent.files, idempotency=key, noted=noted, replay=replay
    )
    return Queued(generation, made, form)


def _formats(asked: GenerationRequest, card: Card) -> list[OutputFormat]:
    """What `Accept` may choose from: what the body says, or anything, the card's own first."""
    if asked.output_format is not None:
        return [asked.output_format]
    return sorted(OutputFormat, key=lambda form: form is not card.defaults.output_format)


def _idempotency(request: Request, body: bytes) -> Idempotency | None:
    key = idempotency_key(request)
    return None if key is None else Idempotency.of(key, body)


def _patience(request: Request, gate: Gateway, form: OutputFormat | None) -> float | None:
    """How long to hold the answer back; None where nobody asked for that."""
    wanted = wait_seconds(",".join(request.headers.getlist("prefer")))
    if wanted is None:
        return gate.max_wait_seconds if form is not None else None
    return min(wanted, gate.max_wait_seconds)


async def _picture(gate: Gateway, generation: Generation, headers: dict[str, str]) -> Response:
    """The first image of a generation that has ended, of a sweep its grid; or the problem it ended
    with."""
    headers |= {"Darkroom-Generation-Id": generation.id}
    if generation.warnings:
        headers["Darkroom-Warnings"] = ", ".join(warn.code for warn in generation.warnings)
    if generation.status is not GenerationState.SUCCEEDED:
        failure = generation.error
        ended = f"{generation.id} was {generation.status}"
        error = error_of(failure.code, failure.message) if failure else Canceled(ended)
        return error_response(ROOT, error, headers)
    images = generation.images
    index = next((i for i, image in enumerate(images) if image.grid), 0)
    headers |= {
        "Darkroom-Seed": str(images[index].seed),
        "Content-Location": f"{address(generation.id)}/images/{index}",
    }
    content = await read_image(gate.store, images[index].key)
    return Response(content, media_type=generation.spec.output_format.media_type, headers=headers)
