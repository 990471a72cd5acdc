"""What this gateway can do, in one look: for programs that build a form or choose a checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from server import __version__
from server.api import openapi
from server.api.chains import DRAWN_OVER
from server.api.deps import Gate
from server.api.negotiation import JSON
from server.catalog import Card, Limits
from server.models.shelf import Shelf, loras, vaes
from server.spec import (
    MAX_CACHE_INTERVAL,
    MAX_SEED,
    SHORTCUTS,
    UPLOADED,
    Axis,
    LongPrompts,
    OutputFormat,
    PromptSyntax,
    Sampler,
    Sigmas,
    Task,
)

router = APIRouter(prefix="/v1", tags=["system"])

EXAMPLE: dict[str, Any] = {
    "version": __version__,
    "tasks": list(Task),
    "samplers": list(Sampler),
    "sigmas": list(Sigmas),
    "output_formats": list(OutputFormat),
    "prompt_syntaxes": list(PromptSyntax),
    "long_prompts": list(LongPrompts),
    "uploads": list(UPLOADED),
    "shortcuts": list(SHORTCUTS),
    "max_cache_interval": MAX_CACHE_INTERVAL,
    "sweep_fields": list(get_args(Axis.model_fields["field"].annotation)),
    "default_checkpoint": "demo",
    "checkpoints": [
        {
            "name": "demo",
            "family": "sd",
            "tasks": ["text-to-image", "image-to-image", "inpainting"],
            "served": True,
            "hires": True,
            "refiner": True,
            "limits": Limits(
                max_side=512, max_pixels=262_144, max_input_pixels=4_194_304, max_clip_skip=1
            ).model_dump(mode="json"),
        }
    ],
    "refiners": ["demo", "sdxl-refiner"],
    "upscalers": ["sd-x4-upscaler"],
    "loras": ["pixel-art"],
    "vaes": ["sharper"],
    "max_body_bytes": 33_554_432,
    "max_wait_seconds": 300.0,
    "max_seed": MAX_SEED,
}


class CheckpointAbilities(BaseModel):
    """What one checkpoint can be asked for."""

    name: str
    family: str = Field(description="A refiner that takes over within the schedule has the same.")
    tasks: tuple[Task, ...]
    served: bool | None = Field(
        description="Whether a worker of it is ready; null where the queue cannot be asked."
    )
    hires: bool = Field(description="Whether it can draw over its own picture at a larger size.")
    refiner: bool = Field(description="Whether a refiner can follow it.")
    limits: Limits


class Capabilities(BaseModel):
    """What this gateway can do."""

    version: str
    tasks: tuple[Task, ...]
    samplers: tuple[Sampler, ...]
    sigmas: tuple[Sigmas, ...]
    output_formats: tuple[OutputFormat, ...]
    prompt_syntaxes: tuple[PromptSyntax, ...]
    long_prompts: tuple[LongPrompts, ...]
    uploads: tuple[str, ...] = Field(description="Fields, or file parts, that hold a picture.")
    shortcuts: tuple[str, ...] = Field(
        description="Fields that draw faster, and not the same picture."
    )
    max_cache_interval: int
    sweep_fields: tuple[str, ...] = Field(description="What a sweep can vary.")
    default_checkpoint: str
    checkpoints: tuple[CheckpointAbilities, ...]
    refiners: tuple[str, ...] = Field(description="Checkpoints that can draw over a picture.")
    upscalers: tuple[str, ...]
    loras: tuple[str, ...] | None = Field(
        description="Names for `loras`; null where only the workers can see them."
    )
    vaes: tuple[str, ...] | None = Field(description="Names for `vae`, likewise.")
    max_body_bytes: int
    max_wait_seconds: float
    max_seed: int


@router.get(
    "/capabilities",
    summary="What this gateway can do",
    operation_id="get_capabilities",
    response_model=Capabilities,
    responses=openapi.responses(
        {200: openapi.answer("Tasks, checkpoints, formats and bounds.", EXAMPLE)},
    ),
)
async def get_capabilities(gate: Gate) -> Response:
    """Tasks, checkpoints and what they can be combined with, formats, bounds and the version."""
    cards = tuple(gate.catalog.values())
    served = await gate.served()
    found = Capabilities(
        version=__version__,
        tasks=tuple(task for task in Task if any(task in card.tasks for card in cards)),
        samplers=tuple(Sampler),
        sigmas=tuple(Sigmas),
        output_formats=tuple(OutputFormat),
        prompt_syntaxes=tuple(PromptSyntax),
        long_prompts=tuple(LongPrompts),
        uploads=UPLOADED,
        shortcuts=SHORTCUTS,
        max_cache_interval=MAX_CACHE_INTERVAL,
        sweep_fields=get_args(Axis.model_fields["field"].annotation),
        default_checkpoint=gate.card(None).name,
        checkpoints=tuple(_abilities(card, served) for card in cards),
        refiners=_offering(Task.IMAGE_TO_IMAGE, cards),
        upscalers=_offering(Task.UPSCALE, cards),
        loras=await _names(gate.models, loras),
        vaes=await _names(gate.models, vaes),
        max_body_bytes=gate.max_body_bytes,
        max_wait_seconds=gate.max_wait_seconds,
        max_seed=MAX_SEED,
    )
    return Response(found.model_dump_json(), media_type=JSON)


def _abilities(card: Card, served: dict[str, bool] | None) -> CheckpointAbilities:
    followed = any(task in card.tasks for task in DRAWN_OVER)
    return CheckpointAbilities(
        name=card.name,
        family=card.family,
        tasks=card.tasks,
        served=None if served is None else served[card.name],
        hires=followed and Task.IMAGE_TO_IMAGE in card.tasks,
        refiner=followed,
        limits=card.limits,
    )


def _offering(task: Task, cards: tuple[Card, ...]) -> tuple[str, ...]:
    return tuple(card.name for card in cards if task in card.tasks)


async def _names(models: Path | None, shelf: Callable[[Path], Shelf]) -> tuple[str, ...] | None:
    if models is None or not models.is_dir():
        return None
    return tuple(await asyncio.to_thread(lambda: shelf(models).names))
