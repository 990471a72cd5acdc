"""What a picture looks like while it is drawn."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from server.api import openapi
from server.api.deps import Caller, Gate, GenerationId
from server.api.records import ROOT, address
from server.errors import BrokerUnavailable, Gone, InvalidRequest, NotFound
from server.spec import OutputFormat

JPEG = OutputFormat.JPEG.media_type

router = APIRouter(prefix=ROOT, tags=["generations"])


@router.get(
    "/{id}/images/{index}/preview",
    summary="Get the newest preview of an image",
    operation_id="get_preview",
    response_class=Response,
    responses=openapi.responses(
        {
            200: {
                "description": "A small picture; the next one takes its place.",
                "content": {
                    JPEG: {
                        "schema": {"type": "string", "format": "binary"},
                        "example": "(the bytes of a jpeg file)",
                    }
                },
            },
        },
        NotFound,
        Gone,
        InvalidRequest,
        BrokerUnavailable,
    ),
)
async def get_preview(
    id: GenerationId,
    index: Annotated[int, Path(description="From 0 to num_images - 1.", examples=[0])],
    gate: Gate,
    owner: Caller,
) -> Response:
    """The image as the checkpoint expected it at the last step that was to be shown, at most 512
    pixels wide and high. Kept for two minutes; `previews` of the request asks for it."""
    await gate.broker.get(id, owner=owner)
    picture = await gate.broker.preview(id, index)
    if picture is None:
        raise NotFound(f"image {index} of {id} has no preview, or none any more")
    return Response(picture, media_type=JPEG, headers={"Cache-Control": "no-store"})


def preview_address(id: str, index: int) -> str:
    """Where the newest preview of an image is found."""
    return f"{address(id)}/images/{index}/preview"
