"""The pictures themselves. They never change, so whoever has one may keep it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from server.api import openapi
from server.api.deps import Caller, Gate, Gateway, GenerationId
from server.api.records import ROOT
from server.broker import Generation
from server.errors import BrokerUnavailable, Gone, InvalidRequest, NotFound, Unavailable
from server.spec import GenerationState, ImageInfo, OutputFormat
from server.storage import ImageStore

FOREVER = "private, max-age=31536000, immutable"
CREDENTIALS = "Authorization, X-API-Key"
"""A browser shows what it has kept only to whom it was answered."""

router = APIRouter(prefix=ROOT, tags=["generations"])


@router.get(
    "/{id}/images/{index}",
    summary="Get an image",
    operation_id="get_image",
    response_class=Response,
    responses=openapi.responses(
        {
            200: {
                "description": "The encoded picture, the same for ever.",
                "content": {
                    form.media_type: {
                        "schema": {"type": "string", "format": "binary"},
                        "example": f"(the bytes of a {form.value} file)",
                    }
                    for form in OutputFormat
                },
            },
            304: {"description": "`If-None-Match` names the ETag of this picture."},
            307: {
                "description": "The image store itself gives it out, for a while, to whoever has "
                "the URL in `Location`, without a key. Only where DARKROOM_PRESIGNED_SECONDS says "
                "so, and never for a page of this server's own.",
                "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
            },
        },
        NotFound,
        Gone,
        InvalidRequest,
        BrokerUnavailable,
        Unavailable,
    ),
    openapi_extra={
        "parameters": [openapi.header("If-None-Match", "An ETag of this image.", '"9f86d081884c"')]
    },
)
async def get_image(
    id: GenerationId,
    index: Annotated[
        int,
        Path(
            description="From 0 to num_images - 1; the grid of a sweep comes after them.",
            examples=[0],
        ),
    ],
    request: Request,
    gate: Gate,
    owner: Caller,
) -> Response:
    """One picture of a generation that succeeded."""
    generation = await gate.broker.get(id, owner=owner)
    image = finished_image(generation, index)
    etag = f'"{image.sha256}"'
    headers = {"ETag": etag, "Cache-Control": FOREVER, "Vary": CREDENTIALS}
    if known(",".join(request.headers.getlist("if-none-match")), etag):
        return Response(status_code=304, headers=headers)
    if (elsewhere := await lent(gate, request, image.key)) is not None:
        there = {"Location": elsewhere, "Cache-Control": "no-store"}
        return Response(status_code=307, headers=there)
    form = generation.spec.output_format
    headers["Content-Disposition"] = f'inline; filename="{id}-{index}.{form.value}"'
    content = await read_image(gate.store, image.key)
    return Response(content, media_type=form.media_type, headers=headers)


async def lent(gate: Gateway, request: Request, key: str) -> str | None:
    """Where the store itself gives the image out, if an operator wants that. A page of our own is
    not sent there: its browser would not follow it to another site. Nor is who sends `X-API-Key`:
    clients take that header, unlike `Authorization`, along to wherever they are sent."""
    own_page = request.headers.get("sec-fetch-site") == "same-origin"
    if not gate.presigned_seconds or own_page or "x-api-key" in request.headers:
        return None
    return await gate.store.lend(key, gate.presigned_seconds)


async def read_image(store: ImageStore, key: str) -> bytes:
    """Raises Gone where a record says that there is a picture and the store has none."""
    try:
        return await store.get(key)
    except NotFound as error:
        raise Gone(error.message) from error


def finished_image(generation: Generation, index: int) -> ImageInfo:
    """Raises NotFound where there is no such picture, or none yet."""
    if generation.status is not GenerationState.SUCCEEDED:
        raise NotFound(f"{generation.id} has no images: it is {generation.status}")
    if not 0 <= index < len(generation.images):
        count = len(generation.images)
        raise NotFound(f"{generation.id} has {count} image(s), counted from 0; not {index}")
    return generation.images[index]


def known(if_none_match: str, etag: str) -> bool:
    """Weak comparison, as RFC 9110 has it for this header."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or etag in tags
