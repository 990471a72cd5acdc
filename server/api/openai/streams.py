"""A generation as the stream of events that OpenAI's clients follow.

An error after the stream has begun is an event with an `error`, which the SDKs raise.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, Field

from server.api.deps import Gateway
from server.api.doors import succeeded
from server.api.openai.answers import Usage, encoded, pictures, said, size, usage
from server.api.openai.envelope import envelope
from server.broker import Generation
from server.errors import DarkroomError
from server.spec import AnySpec, OutputFormat, Warn

PING_SECONDS = 15.0


class PictureEvent(BaseModel):
    """A picture, or how far it is."""

    type: str
    b64_json: str
    created_at: int = Field(description="Seconds since the epoch.")
    size: str
    quality: str = "auto"
    background: str = "opaque"
    output_format: str
    index: int = Field(description="Which of the pictures, where there are several.")


class PartialImage(PictureEvent):
    """A small picture of what is drawn so far."""

    partial_image_index: int = Field(
        description="Counted from 0; again in each stage, and where a worker takes over."
    )


class CompletedImage(PictureEvent):
    """A finished picture. `usage` is that of all pictures, said with each."""

    seed: int
    usage: Usage | None
    warnings: tuple[Warn, ...]


async def streamed(
    gate: Gateway, owner: str, generation: Generation, warnings: Sequence[Warn], kind: str
) -> AsyncIterator[bytes]:
    """Previews while it is drawn, then each picture. `kind` is what events' names begin with."""
    try:
        async for chunk in _partials(gate, owner, generation, kind):
            yield chunk
        ended = succeeded(await gate.broker.get(generation.id, owner=owner))
        async for completed in _completed(gate, ended, warnings, kind):
            yield _sent(completed)
    except DarkroomError as error:
        yield _failed(error)


async def _partials(
    gate: Gateway, owner: str, generation: Generation, kind: str
) -> AsyncIterator[bytes]:
    """Until it has ended, or this process is to end."""
    async for event in gate.broker.events(generation.id, after="0", idle_seconds=PING_SECONDS):
        if event is None:
            await gate.broker.get(generation.id, owner=owner)  # expires what is overdue
            yield KEEPALIVE_COMMENT
            continue
        if event.event != "preview":
            continue
        index, number = event.data["index"], event.data["number"]
        picture = await gate.broker.preview(generation.id, index)
        if picture is not None:  # else it is kept no more
            yield _sent(_partial(generation.spec, picture, kind, index, number))


def _partial(spec: AnySpec, picture: bytes, kind: str, index: int, number: int) -> PartialImage:
    return PartialImage(
        type=f"{kind}.partial_image",
        b64_json=base64.b64encode(picture).decode(),
        created_at=int(time.time()),
        size=f"{spec.width}x{spec.height}",
        output_format=OutputFormat.JPEG.value,
        index=index,
        partial_image_index=number - 1,
    )


async def _completed(
    gate: Gateway, ended: Generation, warnings: Sequence[Warn], kind: str
) -> AsyncIterator[CompletedImage]:
    spent = await usage(gate, ended)
    for index, image in pictures(ended):
        yield CompletedImage(
            type=f"{kind}.completed",
            b64_json=await encoded(gate, image),
            created_at=int(ended.finished_at or ended.created_at),
            size=size(image),
            output_format=ended.spec.output_format.value,
            index=index,
            seed=image.seed,
            usage=spent,
            warnings=said(ended, warnings),
        )


def _sent(event: PictureEvent) -> bytes:
    return format_sse_event(data_str=event.model_dump_json(exclude_none=True), event=event.type)


def _failed(error: DarkroomError) -> bytes:
    _, body, _ = envelope(error)
    told: dict[str, Any] = {"type": "error"} | body.model_dump()
    return format_sse_event(data_str=json.dumps(told), event="error")
