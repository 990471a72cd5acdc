"""What a picture says of itself, read back as A1111 does."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, Field

from server.api import openapi
from server.api.a1111.door import answered, documented, door, read_body
from server.api.a1111.examples import INFOTEXT, PROMPT
from server.api.a1111.painting import opened
from server.api.a1111.schemas import PngSent
from server.api.deps import gateway
from server.api.examples import PICTURE
from server.errors import BadRequest, BodyTooLarge, InvalidRequest, InvalidSpec
from server.recipe import PARAMETERS, parse_infotext, texts_of
from server.spec import MAX_INPUT_PIXELS

router = door()

SIZE = re.compile(r"(\d+)x(\d+)")

EXAMPLE = {
    "info": INFOTEXT,
    "items": {},
    "parameters": {"Prompt": PROMPT, "Negative prompt": "", "Steps": "20", "Seed": "7"},
}


class PictureInfo(BaseModel):
    """What a picture says of itself."""

    info: str = Field(description="Its infotext; empty where it has none.")
    items: dict[str, Any] = Field(description="Its other texts.")
    parameters: dict[str, Any] = Field(description="What the infotext says, by A1111's names.")


@router.post(
    "/png-info",
    summary="What a picture says of itself",
    operation_id="a1111_png_info",
    openapi_extra=openapi.body_of(PngSent, {"image": PICTURE}),
    **documented(
        "Its texts.",
        PictureInfo,
        EXAMPLE,
        BadRequest,
        BodyTooLarge,
        InvalidRequest,
        InvalidSpec,
    ),
)
async def png_info(request: Request) -> Response:
    """The generation parameters of a PNG, JPEG or WebP that Darkroom or A1111 has written."""
    gate = await gateway(request)
    sent, _ = await read_body(request, PngSent)
    async with gate.decoders:
        return answered(await asyncio.to_thread(_read, sent.image))


def _read(text: str | None) -> dict[str, Any]:
    _, picture = opened(text, "image", MAX_INPUT_PIXELS)
    items: dict[str, Any] = dict(texts_of(picture))
    info = items.pop(PARAMETERS, "")
    try:
        return {"info": info, "items": items, "parameters": _parameters(info)}
    except InvalidSpec as error:
        raise InvalidSpec(f"Invalid encoded image: {error.message}", field="image") from None


def _parameters(info: str) -> dict[str, Any]:
    """As A1111 spreads them: a size becomes two numbers."""
    if not info:
        return {}
    read = parse_infotext(info)
    found = {"Prompt": read.prompt, "Negative prompt": read.negative_prompt, **read.settings}
    for name, value in list(found.items()):
        if (size := SIZE.fullmatch(value)) is not None:
            found |= {f"{name}-1": size[1], f"{name}-2": size[2]}
            del found[name]
    return found
