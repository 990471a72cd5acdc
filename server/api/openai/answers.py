"""From a generation that has its pictures to what OpenAI's clients read. Knows records and the
image store."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence

from fastapi import Request
from pydantic import BaseModel, Field, ValidationError

from server.api.deps import Gateway
from server.api.images import read_image
from server.api.openai.orders import Manner
from server.api.records import address
from server.api.tokenizers import TokenizeRequest
from server.broker import Generation
from server.errors import DarkroomError
from server.spec import ImageInfo, Warn


class ImageData(BaseModel):
    """One picture, as itself or as an address."""

    b64_json: str | None = None
    url: str | None = None
    seed: int = Field(description="What it was drawn from.")


class InputTokens(BaseModel):
    """What the tokens of the input were."""

    text_tokens: int
    image_tokens: int = Field(default=0, description="Pictures have none here.")


class Usage(BaseModel):
    """Tokens as the checkpoint's first text encoder counts them, those beyond its window too."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int = Field(default=0, description="Pictures have none here.")
    total_tokens: int


class ImagesAnswer(BaseModel):
    """The pictures of a generation, as OpenAI's clients read them."""

    id: str = Field(description="Of the generation, as in `GET /v1/generations/{id}`.")
    created: int = Field(description="Seconds since the epoch, when it was finished.")
    data: tuple[ImageData, ...]
    background: str = "opaque"
    output_format: str
    size: str = Field(description="What was drawn.")
    usage: Usage | None = Field(
        None, description="Left out where the gateway does not have the checkpoint's tokenizer."
    )
    warnings: tuple[Warn, ...] = Field(description="What was ignored or substituted.")


async def answered(
    request: Request, gate: Gateway, generation: Generation, manner: Manner
) -> ImagesAnswer:
    """All pictures of a generation that has succeeded.

    Raises:
        Gone, Unavailable: one of them cannot be read.
    """
    here = f"{str(request.base_url).rstrip('/')}{address(generation.id)}"
    images = pictures(generation)
    if manner.by_address:
        data = [ImageData(url=f"{here}/images/{i}", seed=each.seed) for i, each in images]
    else:
        contents = await asyncio.gather(*(encoded(gate, image) for _, image in images))
        data = [
            ImageData(b64_json=content, seed=image.seed)
            for content, (_, image) in zip(contents, images, strict=True)
        ]
    return ImagesAnswer(
        id=generation.id,
        created=int(generation.finished_at or generation.created_at),
        data=tuple(data),
        output_format=generation.spec.output_format.value,
        size=size(images[0][1]),
        usage=await usage(gate, generation),
        warnings=said(generation, manner.warnings),
    )


def pictures(generation: Generation) -> list[tuple[int, ImageInfo]]:
    """With their indices; the grid of a sweep is none."""
    return [(i, image) for i, image in enumerate(generation.images) if not image.grid]


async def encoded(gate: Gateway, image: ImageInfo) -> str:
    """The file as JSON carries it. Raises as `read_image` does."""
    return base64.b64encode(await read_image(gate.store, image.key)).decode()


def size(image: ImageInfo) -> str:
    """As OpenAI writes it."""
    return f"{image.width}x{image.height}"


def said(generation: Generation, warnings: Sequence[Warn]) -> tuple[Warn, ...]:
    """What this door has noticed, then what the others have."""
    return tuple(dict.fromkeys((*warnings, *generation.warnings)))


async def usage(gate: Gateway, generation: Generation) -> Usage | None:
    """None where it cannot be counted: no picture is held back for that."""
    spec = generation.spec
    try:
        asked = TokenizeRequest(
            checkpoint=spec.checkpoint,
            prompt=spec.prompt,
            prompt_syntax=spec.prompt_syntax,
            long_prompts=spec.long_prompts,
        )
        card = gate.catalog[spec.checkpoint]
        tokens = (await asyncio.to_thread(gate.tokenizers.tokenize, card, asked)).count
    except (DarkroomError, ValidationError):
        return None
    details = InputTokens(text_tokens=tokens)
    return Usage(input_tokens=tokens, input_tokens_details=details, total_tokens=tokens)
