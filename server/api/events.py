"""What happens to a generation, as server-sent events."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from server.api import openapi
from server.api.deps import Caller, Gate, Gateway, GenerationId
from server.api.negotiation import EVENT, EVENT_STREAM
from server.api.previews import preview_address
from server.api.records import ROOT
from server.broker import Event
from server.errors import (
    BadRequest,
    BrokerUnavailable,
    DarkroomError,
    Gone,
    NotFound,
    TooManyStreams,
)

PING_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
STREAM_ID = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?")
MAX_STREAM_NUMBER = 2**64 - 1

EXAMPLE = """retry: 2000

event: state
data: {"status":"running"}
id: 1763711640154-0

event: progress
data: {"steps_done":5,"steps_total":20,"fraction":0.25}
id: 1763711640954-0

event: preview
data: {"index":0,"number":1,"url":"/v1/generations/gen_0198…/images/0/preview"}
id: 1763711641201-0

event: image
data: {"index":0,"seed":7,"sha256":"9f86d081884c7d65…"}
id: 1763711642907-0

event: done
data: {"status":"succeeded"}
id: 1763711642907-2

"""

router = APIRouter(prefix=ROOT, tags=["generations"])


@router.get(
    "/{id}/events",
    summary="Follow a generation",
    operation_id="follow_generation",
    response_class=StreamingResponse,
    responses=openapi.responses(
        {
            200: {
                "description": "`state`, `stage`, `progress`, `preview`, `image`; `done` is last.",
                "content": {EVENT_STREAM: {"itemSchema": EVENT, "example": EXAMPLE}},
            }
        },
        BadRequest,
        NotFound,
        Gone,
        TooManyStreams,
        BrokerUnavailable,
    ),
    openapi_extra={
        "parameters": [
            openapi.header(
                "Last-Event-ID",
                "Begin after this event; everything so far is sent without it.",
                "1763711640954-0",
            )
        ]
    },
)
async def follow_generation(
    id: GenerationId, request: Request, gate: Gate, owner: Caller
) -> StreamingResponse:
    """Everything that has happened, then everything that happens, up to and including `done`."""
    after = request.headers.get("last-event-id", "0")
    parts = STREAM_ID.fullmatch(after)
    if parts is None or any(int(part or 0) > MAX_STREAM_NUMBER for part in parts.groups()):
        raise BadRequest(
            "Last-Event-ID: must be the id of an event of this stream", field="Last-Event-ID"
        )
    await gate.broker.get(id, owner=owner)
    gate.streams.expect_room(owner)
    return StreamingResponse(
        gate.streams.counted(owner, _stream(gate, id, owner, after)),
        media_type=EVENT_STREAM,
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _stream(gate: Gateway, id: str, owner: str, after: str) -> AsyncIterator[bytes]:
    """Ends without `done` when the queue is away: the client comes back with its last id."""
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    try:
        async for event in gate.broker.events(id, after=after, idle_seconds=PING_SECONDS):
            if event is None:
                # Looking also expires what is overdue, and ends the stream of what was deleted.
                await gate.broker.get(id, owner=owner)
                yield KEEPALIVE_COMMENT
                continue
            data = json.dumps(_told(id, event), separators=(",", ":"))
            yield format_sse_event(data_str=data, event=event.event, id=event.id)
    except DarkroomError as error:
        yield format_sse_event(comment=f"{error.code}: come back with Last-Event-ID")


def _told(id: str, event: Event) -> dict[str, Any]:
    """Addresses are the gateway's affair, so a preview's is said here."""
    if event.event != "preview":
        return event.data
    return event.data | {"url": preview_address(id, event.data["index"])}
