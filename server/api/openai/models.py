"""Checkpoints as OpenAI's clients list models."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from server.api.deps import Gate
from server.api.negotiation import JSON
from server.api.openai import documents, examples
from server.api.openai.names import checkpoint_of
from server.errors import BrokerUnavailable, UnknownCheckpoint

router = APIRouter(prefix="/v1/models", tags=["openai"])


class Model(BaseModel):
    """A name that requests may have in `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Not known.")
    owned_by: str = "darkroom"
    checkpoint: str = Field(description="What draws for it.")


class ModelList(BaseModel):
    """What can be drawn with now: the default first."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]


@router.get(
    "",
    summary="List the models",
    operation_id="openai_list_models",
    response_model=ModelList,
    responses=documents.responses(
        {200: documents.good("Those that are served.", examples.MODELS)}, BrokerUnavailable
    ),
)
async def list_models(gate: Gate) -> Response:
    """Checkpoints that a worker serves, and the aliases that lead to them. OpenAI's own names work
    too, but are not listed."""
    queues = await gate.broker.queues(list(gate.catalog))
    served = {queue.checkpoint for queue in queues if queue.workers}
    names = sorted(gate.catalog, key=lambda name: name != gate.default_checkpoint)
    standing = {name: name for name in names} | dict(gate.aliases)
    found = tuple(Model(id=id, checkpoint=c) for id, c in standing.items() if c in served)
    return Response(ModelList(data=found).model_dump_json(), media_type=JSON)


@router.get(
    "/{id}",
    summary="Look at a model",
    operation_id="openai_get_model",
    response_model=Model,
    responses=documents.responses(
        {200: documents.good("It can be asked for.", examples.MODEL)}, UnknownCheckpoint
    ),
)
async def get_model(
    id: Annotated[str, Path(description="A name as in `model`.", examples=["gpt-image-1"])],
    gate: Gate,
) -> Response:
    """Which checkpoint draws for a name, whether it is served or not."""
    checkpoint, _ = checkpoint_of(id, gate.aliases, gate.catalog, gate.default_checkpoint)
    return Response(Model(id=id, checkpoint=checkpoint).model_dump_json(), media_type=JSON)
