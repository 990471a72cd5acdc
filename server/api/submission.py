"""Submitting a generation: check it in full, queue it, and wait with the answer if asked to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from server.api import openapi
from server.api.adapters import check_names
from server.api.deps import Gateway, caller, gateway
from server.api.examples import QUEUED as QUEUED_EXAMPLE
from server.api.examples import RECORD as EXAMPLE
from server.api.forms import read_sent
from server.api.handlers import error_of, problem_response
from server.api.images import read_image
from server.api.inputs import WHITE
from server.api.negotiation import JSON, accepted_format, wait_seconds
from server.api.records import ROOT, GenerationRecord, address
from server.api.resolve import to_spec
from server.api.schemas import GenerationRequest
from server.api.uploads import MASK, discard, read_pictures, sent_pictures, store
from server.broker import Generation, Idempotency
from server.catalog import Card
from server.errors import (
    BadRequest,
    BodyTooLarge,
    BrokerUnavailable,
    Canceled,
    DarkroomError,
    DeadlineExceeded,
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
    UnknownCheckpoint,
    UnsupportedMediaType,
)
from server.spec import AnySpec, GenerationState, OutputFormat, Upload, new_generation_id
from server.stages import checkpoints

MAX_KEY_CHARACTERS = 255
LONG = 4096
"""Characters of prompts that are read in a few milliseconds at most."""

ENDINGS = (GenerationFailed, OutOfMemory, NotFinite, Quarantined, Canceled, DeadlineExceeded)


class DirectRoute(APIRoute):
    """Calls its endpoint with the request and nothing else. On this path FastAPI's injection
    would cost more than checking the spec does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


router = APIRouter(prefix=ROOT, tags=["generations"], route_class=DirectRoute)

_HEADERS = [
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
        BadRequest,
        NotAcceptable,
        BodyTooLarge,
        UnsupportedMediaType,
        InvalidRequest,
        InvalidSpec,
        UnknownCheckpoint,
        IdempotencyConflict,
        QueueFull,
        NoWorker,
        BrokerUnavailable,
        Gone,
        *ENDINGS,
    ),
    openapi_extra=_SUBMIT | {"parameters": _HEADERS},
)
async def create_generation(request: Request) -> Response:
    """Check a generation in full, then queue it.

    Nothing is queued where this refuses, but for `broker_unavailable`: then the outcome is unknown,
    and asking again is safe with an Idempotency-Key only.
    """
    gate, owner = await gateway(request), await caller(request)
    try:
        generation, made, form = await _accepted(request, gate, owner)
    except DarkroomError as error:
        gate.metrics.generations_refused_total.labels(error.code).inc()
        raise
    headers = {"Location": address(generation.id)}
    if made:
        gate.metrics.generations_accepted_total.labels(generation.spec.checkpoint).inc()
    else:
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


async def _accepted(
    request: Request, gate: Gateway, owner: str
) -> tuple[Generation, bool, OutputFormat | None]:
    """What was queued, whether it was now, and the format of the picture to answer with."""
    sent = await read_sent(request, gate.max_body_bytes)
    asked, body, card = sent.asked, sent.body, gate.card(sent.asked.checkpoint)
    accept = ",".join(request.headers.getlist("accept"))
    form = accepted_format(accept, _formats(asked, card))
    if form is not None:
        asked = asked.model_copy(update={"output_format": form})
        body += form.encode()  # another picture format is another request
    limit = card.limits.max_input_pixels
    pictures = await read_pictures(sent_pictures(asked, sent.files), gate.decoders, limit)
    id = new_generation_id()
    uploads = {field: picture.upload(id, field) for field, picture in pictures.items()}
    brightest = pictures[MASK].brightest if MASK in pictures else WHITE
    resolved = partial(to_spec, asked, card, gate.catalog, uploads, brightest)
    spec, warnings = await asyncio.to_thread(resolved) if _is_long(asked) else resolved()
    await check_names(spec, gate.models)
    key = _idempotency(request, body)
    await store(gate.store, uploads, pictures)
    submit = partial(gate.broker.submit, spec, owner=owner, id=id, warnings=warnings)
    generation, made = await _submitted(gate, spec, uploads, submit(idempotency=key))
    return generation, made, form


async def _submitted(
    gate: Gateway,
    spec: AnySpec,
    uploads: Mapping[str, Upload],
    submitting: Awaitable[tuple[Generation, bool]],
) -> tuple[Generation, bool]:
    """What comes of it. Pictures are kept only where something was queued with them."""
    try:
        generation, made = await submitting
    except BrokerUnavailable:
        raise  # It may have been accepted: then its worker needs what was stored.
    except NoWorker as error:
        await discard(gate.store, uploads)
        raise await _unserved(gate, spec, error) from None
    except DarkroomError:
        await discard(gate.store, uploads)
        raise
    if not made:
        await discard(gate.store, uploads)
    return generation, made


async def _unserved(gate: Gateway, spec: AnySpec, error: NoWorker) -> NoWorker:
    """The error, and what can be done: ask for what is served, or serve what was asked for."""
    served = await gate.served()
    if served is None:
        return error
    ready = ", ".join(name for name, is_ready in served.items() if is_ready) or "none"
    missing = [name for name in checkpoints(spec) if not served[name]]
    start = (f"`darkroom worker --checkpoint {name}`" for name in missing)
    message = "; start ".join([f"{error.message}; served now: {ready}", *start])
    return NoWorker(message, field=error.field, retry_after=error.retry_after)


def _is_long(asked: GenerationRequest) -> bool:
    """Whether it takes so long to read its brackets that other requests would notice."""
    texts = asked.prompt, asked.negative_prompt, asked.prompt_2, asked.negative_prompt_2
    return sum(len(text) for text in texts if text) > LONG


def _formats(asked: GenerationRequest, card: Card) -> list[OutputFormat]:
    """What `Accept` may choose from: what the body says, or anything, the card's own first."""
    if asked.output_format is not None:
        return [asked.output_format]
    return sorted(OutputFormat, key=lambda form: form is not card.defaults.output_format)


def _idempotency(request: Request, body: bytes) -> Idempotency | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not (key.isascii() and key.isprintable()):
        rule = f"1 to {MAX_KEY_CHARACTERS} printable ASCII characters"
        raise BadRequest(f"Idempotency-Key: must be {rule}", field="Idempotency-Key")
    return Idempotency.of(key, body)


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
        return problem_response(error, headers)
    images = generation.images
    index = next((i for i, image in enumerate(images) if image.grid), 0)
    headers |= {
        "Darkroom-Seed": str(images[index].seed),
        "Content-Location": f"{address(generation.id)}/images/{index}",
    }
    content = await read_image(gate.store, images[index].key)
    return Response(content, media_type=generation.spec.output_format.media_type, headers=headers)
