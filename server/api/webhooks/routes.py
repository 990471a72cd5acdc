"""What became of a generation's webhook, and having it called again."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from server.api import openapi
from server.api.deps import Caller, Gate, GenerationId
from server.api.negotiation import JSON
from server.api.records import ROOT, rfc3339
from server.api.webhooks.asked import NO_SECRET
from server.broker import Delivery, DeliveryState, Generation
from server.errors import BrokerUnavailable, Gone, InvalidRequest, NotFound
from server.spec import GenerationState

router = APIRouter(prefix=ROOT, tags=["generations"])


class AttemptRecord(BaseModel):
    """One call of a webhook."""

    at: str
    status: int | None = Field(description="What it answered; null where it did not.")
    error: str | None = Field(description="What went wrong, where the status does not say it.")
    seconds: float = Field(description="How long it took.")


class WebhookRecord(BaseModel):
    """A generation's webhook, and what became of it. Times are RFC 3339 in UTC."""

    url: str
    states: tuple[GenerationState, ...] = Field(description="Called for these ends only; [] all.")
    state: DeliveryState = Field(
        description="pending also while the generation has not ended; skipped where it ended in a "
        "state that was not asked for."
    )
    attempts: tuple[AttemptRecord, ...] = Field(description="Oldest first.")
    next_attempt_at: str | None = Field(
        description="At the earliest; null before the generation has ended and when it is over."
    )


EXAMPLE: dict[str, Any] = {
    "url": "https://shop.example/hooks/pictures",
    "states": [],
    "state": "pending",
    "attempts": [
        {"at": "2026-11-21T07:54:03.120Z", "status": 500, "error": None, "seconds": 0.041}
    ],
    "next_attempt_at": "2026-11-21T07:54:08.477Z",
}
NONE = (NotFound, Gone, BrokerUnavailable)


@router.get(
    "/{id}/webhook",
    summary="Look at what became of a webhook",
    operation_id="get_webhook",
    response_model=WebhookRecord,
    responses=openapi.responses({200: openapi.answer("Each attempt so far.", EXAMPLE)}, *NONE),
)
async def get_webhook(id: GenerationId, gate: Gate, owner: Caller) -> Response:
    """How it was called, what it answered, and when it is tried next."""
    generation = await _with_webhook(id, gate, owner)
    delivery = await gate.broker.deliveries.read(id)
    return Response(_shown(generation, delivery).model_dump_json(), media_type=JSON)


@router.post(
    "/{id}/webhook/redeliver",
    status_code=202,
    summary="Call a webhook again",
    operation_id="redeliver_webhook",
    response_model=WebhookRecord,
    responses=openapi.responses(
        {202: openapi.answer("It is called in a moment.", EXAMPLE)}, InvalidRequest, *NONE
    ),
)
async def redeliver_webhook(id: GenerationId, gate: Gate, owner: Caller) -> Response:
    """Whatever became of it before, it is called once more, and tried again as often as the first
    time. Changes nothing while the generation has not ended: it will be called then."""
    generation = await _with_webhook(id, gate, owner)
    if gate.messenger is None:
        raise InvalidRequest(NO_SECRET, field="webhook")
    await gate.broker.deliveries.again(id, time.time())
    delivery = await gate.broker.deliveries.read(id)
    return Response(_shown(generation, delivery).model_dump_json(), 202, media_type=JSON)


async def _with_webhook(id: str, gate: Gate, owner: str) -> Generation:
    generation = await gate.broker.get(id, owner=owner)
    if generation.webhook is None:
        raise NotFound(f"{id} has no webhook")
    return generation


def _shown(generation: Generation, delivery: Delivery) -> WebhookRecord:
    assert generation.webhook is not None
    due_at = delivery.due_at if generation.terminal else None
    return WebhookRecord(
        url=generation.webhook.url,
        states=generation.webhook.states,
        state=delivery.state,
        attempts=tuple(
            AttemptRecord(
                at=rfc3339(each.at), status=each.status, error=each.error, seconds=each.seconds
            )
            for each in delivery.attempts
        ),
        next_attempt_at=None if due_at is None else rfc3339(due_at),
    )
