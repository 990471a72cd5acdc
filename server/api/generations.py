"""Look at, list, cancel and delete generations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from server.api import openapi
from server.api.deps import Caller, Gate, GenerationId
from server.api.examples import QUEUED as QUEUED_EXAMPLE
from server.api.examples import RECORD as EXAMPLE
from server.api.negotiation import JSON
from server.api.records import ROOT, GenerationPage, GenerationRecord
from server.errors import BrokerUnavailable, Gone, InvalidRequest, NotFound, Unavailable
from server.spec import GENERATION_ID, GenerationState

CANCEL_WAIT_SECONDS = 1.0
DELETE_WAIT_SECONDS = 10.0

SEEN = (NotFound, Gone, BrokerUnavailable)

router = APIRouter(prefix=ROOT, tags=["generations"])


@router.get(
    "/{id}",
    summary="Look at a generation",
    operation_id="get_generation",
    response_model=GenerationRecord,
    responses=openapi.responses({200: openapi.answer("The whole record.", EXAMPLE)}, *SEEN),
)
async def get_generation(id: GenerationId, gate: Gate, owner: Caller) -> Response:
    """Where it stands, what it is drawn with, and where its images are."""
    generation = await gate.broker.get(id, owner=owner)
    return Response((await gate.record(generation)).model_dump_json(), media_type=JSON)


class PageQuery(BaseModel):
    """Which generations to list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100, description="How many at most.")
    cursor: str | None = Field(
        None,
        pattern=rf"^\d{{1,12}}(\.\d{{1,9}})?-{GENERATION_ID[1:]}",
        description="`next` of the page before.",
    )
    state: GenerationState | None = Field(None, description="Only those in this state.")

    def place(self) -> tuple[float, str] | None:
        """The cursor as the broker has it."""
        if self.cursor is None:
            return None
        seconds, _, id = self.cursor.partition("-")
        return float(seconds), id


@router.get(
    "",
    summary="List your generations",
    operation_id="list_generations",
    response_model=GenerationPage,
    responses=openapi.responses(
        {200: openapi.answer("Newest first.", {"generations": [EXAMPLE], "next": None})},
        InvalidRequest,
        BrokerUnavailable,
    ),
)
async def list_generations(
    query: Annotated[PageQuery, Query()], gate: Gate, owner: Caller
) -> Response:
    """The caller's own, page by page."""
    generations, place = await gate.broker.page(
        owner=owner, limit=query.limit, after=query.place(), state=query.state
    )
    page = GenerationPage(
        generations=tuple([await gate.record(generation) for generation in generations]),
        next=f"{place[0]!r}-{place[1]}" if place else None,
    )
    return Response(page.model_dump_json(), media_type=JSON)


@router.post(
    "/{id}/cancel",
    summary="Cancel a generation",
    operation_id="cancel_generation",
    response_model=GenerationRecord,
    responses=openapi.responses(
        {
            200: openapi.answer(
                "It has ended, by this or before.", EXAMPLE | {"status": "canceled"}
            ),
            202: openapi.answer("Its worker will stop between two steps.", QUEUED_EXAMPLE)
            | {"model": GenerationRecord},
        },
        *SEEN,
    ),
)
async def cancel_generation(id: GenerationId, gate: Gate, owner: Caller) -> Response:
    """Stop it between two steps. Canceling what has ended changes nothing and is no error."""
    generation = await gate.broker.cancel(id, owner=owner)
    if not generation.terminal:
        generation = await gate.broker.wait(id, owner=owner, seconds=CANCEL_WAIT_SECONDS)
    record = await gate.record(generation)
    status = 200 if generation.terminal else 202
    return Response(record.model_dump_json(), status, media_type=JSON)


@router.delete(
    "/{id}",
    status_code=204,
    summary="Delete a generation",
    operation_id="delete_generation",
    responses=openapi.responses(
        {204: {"description": "Record and images are gone; later reads answer 410."}},
        *SEEN,
        Unavailable,
    ),
)
async def delete_generation(id: GenerationId, gate: Gate, owner: Caller) -> Response:
    """Cancel it if it has not ended, then remove its images, what was sent, and its record."""
    generation = await gate.broker.get(id, owner=owner)
    if not generation.terminal:
        await gate.broker.cancel(id, owner=owner)
        generation = await gate.broker.wait(id, owner=owner, seconds=DELETE_WAIT_SECONDS)
    if not generation.terminal:
        raise Unavailable(f"{id} is being canceled; delete it again in a moment", retry_after=2.0)
    # Images first: were the record gone and an image not, nobody could ask for it again.
    await gate.store.clear(id)
    await gate.broker.remove(generation)
    return Response(status_code=204)
