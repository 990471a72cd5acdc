"""The three operations on images: draw, edit, vary. Each holds its answer back until it is drawn,
or streams how it comes about."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from server.api.acceptance import refusals_counted
from server.api.deps import Caller, Gate, Gateway
from server.api.doors import AwaitedStream, Order, awaited, repeated, taken
from server.api.negotiation import JSON
from server.api.openai import documents, examples
from server.api.openai.answers import ImagesAnswer, answered, said
from server.api.openai.orders import Manner, ordered
from server.api.openai.reading import read_body
from server.api.openai.requests import EditRequest, ImagesRequest, VariationRequest
from server.api.openai.streams import streamed
from server.broker import Generation
from server.spec import Warn

router = APIRouter(prefix="/v1/images", tags=["openai"])


@router.post(
    "/generations",
    summary="Draw from a prompt",
    operation_id="openai_generate_images",
    response_model=ImagesAnswer,
    responses=documents.images("image_generation"),
    openapi_extra=documents.body(
        ImagesRequest, {"a picture": examples.GENERATE, "a stream": examples.STREAM}
    ),
)
async def generate_images(request: Request, gate: Gate, owner: Caller) -> Response:
    """As `client.images.generate` of OpenAI's SDKs sends it. `extra_body` may hold every field of
    `POST /v1/generations`."""
    return await _drawn(request, gate, owner, ImagesRequest, "image_generation")


@router.post(
    "/edits",
    summary="Draw over a picture",
    operation_id="openai_edit_image",
    response_model=ImagesAnswer,
    responses=documents.images("image_edit"),
    openapi_extra=documents.body(EditRequest, {"an edit": examples.EDIT}, form=examples.EDIT_FORM),
)
async def edit_image(request: Request, gate: Gate, owner: Caller) -> Response:
    """As `client.images.edit` of OpenAI's SDKs sends it. With a mask this is inpainting: what is
    transparent in the mask is drawn again; without one, image to image."""
    return await _drawn(request, gate, owner, EditRequest, "image_edit")


@router.post(
    "/variations",
    summary="Draw something like a picture",
    operation_id="openai_vary_image",
    response_model=ImagesAnswer,
    responses=documents.images("image_generation"),
    openapi_extra=documents.body(VariationRequest, {}, form=examples.VARIATION_FORM),
)
async def vary_image(request: Request, gate: Gate, owner: Caller) -> Response:
    """As `client.images.create_variation` of OpenAI's SDKs sends it: image to image without a
    prompt, unless there is one."""
    return await _drawn(request, gate, owner, VariationRequest, "image_generation")


async def _drawn(
    request: Request, gate: Gateway, owner: str, model: type[ImagesRequest], kind: str
) -> Response:
    # What was sent is let go of here: somebody may wait long for an answer.
    generation, manner = await _taken(request, gate, owner, model)
    headers = _headers(generation, manner.warnings)
    if manner.streamed:
        events = streamed(gate, owner, generation, manner.warnings, kind)
        events = gate.streams.counted(owner, events)
        return AwaitedStream(gate, owner, generation.id, events, headers)
    generation = await awaited(request, gate, owner, generation)
    answer = await answered(request, gate, generation, manner)
    headers = _headers(generation, manner.warnings)
    return Response(answer.model_dump_json(exclude_none=True), 200, headers, media_type=JSON)


async def _taken(
    request: Request, gate: Gateway, owner: str, model: type[ImagesRequest]
) -> tuple[Generation, Manner]:
    with refusals_counted(gate):
        read = await read_body(request, model, gate.max_body_bytes)
        understood = await ordered(gate, read)
        if understood.manner.streamed:
            gate.streams.expect_room(owner)
        again, noted = repeated(request, owner, read.body), understood.manner.warnings
        order = Order(understood.asked, understood.files, again, noted)
    return await taken(gate, owner, order), understood.manner


def _headers(generation: Generation, warnings: Sequence[Warn]) -> dict[str, str]:
    headers = {"Darkroom-Generation-Id": generation.id}
    if codes := [warn.code for warn in said(generation, warnings)]:
        headers["Darkroom-Warnings"] = ", ".join(codes)
    return headers
