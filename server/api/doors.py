"""Synchronous doors: a generation that somebody waits for with an open connection.

The OpenAI and A1111 dialects answer with the picture. A client that gives up and sends the request
again joins what is being drawn for it; what nobody waits for any more is canceled.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from server.api.acceptance import accept, refusals_counted
from server.api.deps import Gateway
from server.api.handlers import error_of
from server.api.negotiation import idempotency_key
from server.api.schemas import GenerationRequest
from server.broker import Generation, Idempotency, Repeats
from server.errors import BrokerUnavailable, Canceled, DarkroomError, StillDrawing
from server.spec import GenerationState, Warn

log = logging.getLogger("darkroom.doors")

RETRY_SECONDS = 900
"""How long a repeated request joins: the SDKs wait 600 seconds, then try twice more."""

RETRY_COUNT = "x-stainless-retry-count"
"""What OpenAI's SDKs count their tries in, from 0."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a dialect has understood of a request."""

    asked: GenerationRequest
    files: Mapping[str, bytes] = field(default_factory=dict)
    idempotency: Idempotency | None = None
    noted: Sequence[Warn] = ()
    """What the dialect has ignored or substituted; the record says so, too."""


def repeated(request: Request, caller: str, body: bytes) -> Idempotency:
    """What the same request, sent again, is answered with.

    `body`: what the same request has again when it is sent again, such as a digest of its parts.
    With an Idempotency-Key this is as on `POST /v1/generations`, but that what came to nothing is
    drawn again: who left may come back for it. Without one, a retry that says so joins what its
    first try is having drawn.
    """
    sent = hashlib.sha256(request.url.path.encode() + b"\n" + body).digest()
    if (key := idempotency_key(request)) is not None:
        return replace(Idempotency.of(key, sent), repeats=Repeats.LIVING)
    again = request.headers.get(RETRY_COUNT, "0")
    counted = again.isascii() and again.isdigit() and int(again[:3]) > 0
    same = Idempotency.of(f"retry of {caller} {sent.hex()}", sent)
    repeats = Repeats.LIVING if counted else Repeats.NOTHING
    return replace(same, repeats=repeats, seconds=RETRY_SECONDS)


async def drawn(request: Request, gate: Gateway, owner: str, order: Order) -> Generation:
    """Have it drawn and wait until it has succeeded.

    Raises:
        DarkroomError: it was refused, or ended otherwise; `StillDrawing` where it has not ended.
        ClientDisconnect: nobody is left to answer.
    """
    return await awaited(request, gate, owner, await taken(gate, owner, order))


async def awaited(
    request: Request, gate: Gateway, owner: str, generation: Generation
) -> Generation:
    """The second half of `drawn`, for a door that does something in between."""
    async with waited_for(gate, generation.id, owner):
        ended = await _unless_left(request, gate, generation.id, owner)
    return succeeded(ended)


async def taken(gate: Gateway, owner: str, order: Order) -> Generation:
    """Accept it, or find the one that it repeats.

    Raises:
        DarkroomError: it was refused.
    """
    with refusals_counted(gate):
        generation, _ = await accept(
            gate,
            owner,
            order.asked,
            order.files,
            idempotency=order.idempotency,
            noted=order.noted,
        )
    return generation


def succeeded(generation: Generation) -> Generation:
    """The same, if it has its pictures.

    Raises:
        DarkroomError: what it ended with; `StillDrawing` where it has not ended.
    """
    if generation.status is GenerationState.SUCCEEDED:
        return generation
    if not generation.terminal:
        raise StillDrawing(
            f"{generation.id} is still being drawn; the same request sent again as a retry waits on"
        )
    if generation.error is not None:
        raise error_of(generation.error.code, generation.error.message)
    raise Canceled(f"{generation.id} was {generation.status}")


@contextlib.asynccontextmanager
async def waited_for(gate: Gateway, id: str, owner: str) -> AsyncIterator[None]:
    """While somebody waits. Who leaves before the end, last of all who wait, has it canceled, a
    moment later: a retry would still join."""
    waiter = uuid4().hex
    try:
        await _suppressed(gate.broker.attend(id, waiter, seconds=gate.max_wait_seconds))
        yield
    except (ClientDisconnect, asyncio.CancelledError, GeneratorExit):
        gate.later(_gone(gate, id, owner, waiter))
        raise
    except BaseException:  # we gave up, not the client
        gate.later(_suppressed(gate.broker.leave(id, waiter)))
        raise
    gate.later(_suppressed(gate.broker.leave(id, waiter)))


class AwaitedStream(StreamingResponse):
    """Events for a client that waits. Who leaves is noticed before the first of them, too."""

    def __init__(
        self,
        gate: Gateway,
        owner: str,
        id: str,
        events: AsyncIterator[bytes],
        headers: Mapping[str, str],
    ) -> None:
        self._waited_for = waited_for(gate, id, owner)
        self._whole = False
        never_kept = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, 200, {**headers, **never_kept}, "text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them. Raises `ClientDisconnect` where somebody has not waited for the last."""
        async with self._waited_for:
            await super().__call__(scope, receive, send)
            if not self._whole:  # Starlette ends silently, or has not even begun.
                raise ClientDisconnect

    async def stream_response(self, send: Send) -> None:
        """All of them, unless it is canceled."""
        await super().stream_response(send)
        self._whole = True


async def _gone(gate: Gateway, id: str, owner: str, waiter: str) -> None:
    with contextlib.suppress(DarkroomError):  # then it is drawn, and nothing is lost
        await gate.broker.leave(id, waiter)
        if not gate.abandoned_seconds or await gate.broker.attended(id):
            return  # whoever leaves last comes by here, too
        await asyncio.sleep(gate.abandoned_seconds)
        ended = (await gate.broker.get(id, owner=owner)).terminal
        if not ended and not await gate.broker.attended(id):
            await gate.broker.cancel(id, owner=owner)
            log.info("canceled: who waited has left", extra={"generation": id})


async def _suppressed(call: Any) -> None:
    """Who waits matters only to what may be canceled: an outage must not end a request."""
    with contextlib.suppress(BrokerUnavailable):
        await call


async def _unless_left(request: Request, gate: Gateway, id: str, owner: str) -> Generation:
    waiting = asyncio.create_task(gate.broker.wait(id, owner=owner, seconds=gate.max_wait_seconds))
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        return waiting.result()
    finally:
        waiting.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    """Until the client closes its connection; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
