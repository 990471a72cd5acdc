"""txt2img and img2img: an answer that is held back until the pictures are there."""

from __future__ import annotations

from fastapi import Request, Response

from server.api import openapi
from server.api.a1111.answers import Images, Manner, answer, manner_of
from server.api.a1111.door import documented, door, read_body
from server.api.a1111.examples import DRAWN, PICTURE_REQUEST, TEXT_REQUEST
from server.api.a1111.noted import listed
from server.api.a1111.orders import wish_of
from server.api.a1111.schemas import Drawing, PictureSent, TextSent
from server.api.a1111.settings import Session, given, keep, settings_of
from server.api.a1111.waiting import awaited_for
from server.api.acceptance import refusals_counted
from server.api.deps import Gateway, gateway
from server.api.doors import Order, repeated, taken
from server.broker import Generation
from server.errors import (
    BadRequest,
    BodyTooLarge,
    BrokerUnavailable,
    DeadlineUnmeetable,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSpec,
    NotFound,
    NoWorker,
    OutOfMemory,
    QueueFull,
    QuotaExceeded,
    StillDrawing,
    StorageFull,
)

router = door()

REFUSALS = (
    BadRequest,
    NotFound,
    BodyTooLarge,
    InvalidRequest,
    InvalidSpec,
    IdempotencyConflict,
    QueueFull,
    QuotaExceeded,
    DeadlineUnmeetable,
    StorageFull,
    NoWorker,
    StillDrawing,
    BrokerUnavailable,
    OutOfMemory,
)


@router.post(
    "/txt2img",
    summary="Draw from a prompt",
    operation_id="a1111_txt2img",
    openapi_extra=openapi.body_of(TextSent, TEXT_REQUEST),
    **documented("The pictures, in order.", Images, DRAWN, *REFUSALS),
)
async def txt2img(request: Request) -> Response:
    """Draws `n_iter` times `batch_size` pictures and answers when all are there. What is ignored is
    named in `Darkroom-Warnings`, and in `info` under `darkroom_warnings`."""
    return await _drawn(request, TextSent)


@router.post(
    "/img2img",
    summary="Draw over a picture",
    operation_id="a1111_img2img",
    openapi_extra=openapi.body_of(PictureSent, PICTURE_REQUEST),
    **documented("The pictures, in order.", Images, DRAWN, *REFUSALS),
)
async def img2img(request: Request) -> Response:
    """Draws over the first of `init_images`; with `mask`, only where it is white."""
    return await _drawn(request, PictureSent)


async def _drawn(request: Request, kind: type[Drawing]) -> Response:
    gate, session = await gateway(request), request.state.session
    generation, manner = await _taken(request, gate, session, kind)
    generation = await awaited_for(request, gate, session, generation, manner.task)
    return await answer(manner, generation, gate.store)


async def _taken(
    request: Request, gate: Gateway, session: Session, kind: type[Drawing]
) -> tuple[Generation, Manner]:
    """What was accepted, and how to answer. What was sent, pictures and all, is not kept while the
    client waits."""
    with refusals_counted(gate):
        sent, digest = await read_body(request, kind)
        settings = await settings_of(gate, session)
        wish = await wish_of(sent, gate, settings)
    # The same body under other settings is another request.
    under = digest + repr(sorted(settings.items())).encode()
    again = repeated(request, session.own, under)
    order = Order(wish.asked, wish.files, again, listed(wish.warnings))
    generation = await taken(gate, session.owner, order)
    if sent.override_settings_restore_afterwards is False:
        await keep(gate, session, given(sent.override_settings))
    return generation, manner_of(sent, wish.warnings)
