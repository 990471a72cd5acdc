"""What A1111's clients fill their menus with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, Field, RootModel

from server.api.a1111.door import answered, documented, door
from server.api.a1111.names import ALIASES, LANCZOS, LATENT, NEAREST, NO_UPSCALER, OFFERED
from server.api.deps import Gateway, gateway
from server.infotext import SAMPLER_NAMES
from server.models.shelf import Shelf, loras, vaes
from server.spec import Sampler, Task
from server.stages import UPSCALED

router = door()

DRAWING = {Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.INPAINTING, Task.DEPTH_TO_IMAGE}


class A1111Model(BaseModel):
    """A checkpoint. Its file is the workers' affair, so it has no hash here."""

    title: str = Field(description="What `sd_model_checkpoint` takes.")
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class A1111Vae(BaseModel):
    """A replacement autoencoder."""

    model_name: str
    filename: str


class A1111Sampler(BaseModel):
    """A sampler by A1111's name."""

    name: str
    aliases: list[str]
    options: dict[str, str]


class A1111Scheduler(BaseModel):
    """A schedule type."""

    name: str
    label: str
    aliases: list[str] | None = None
    default_rho: float = -1
    need_inner_model: bool = False


class A1111Upscaler(BaseModel):
    """What can make a picture larger."""

    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float = UPSCALED


class A1111Named(BaseModel):
    """A thing with a name."""

    name: str


class A1111Lora(BaseModel):
    """A LoRA, for `<lora:name:scale>` in a prompt."""

    name: str
    alias: str
    path: str
    metadata: dict[str, Any] = {}


class A1111Embeddings(BaseModel):
    """Embeddings by name. What is in them is seen by workers only."""

    loaded: dict[str, dict[str, Any]]
    skipped: dict[str, dict[str, Any]]


class A1111Models(RootModel[list[A1111Model]]):
    """Checkpoints."""


class A1111Vaes(RootModel[list[A1111Vae]]):
    """Autoencoders."""


class A1111Samplers(RootModel[list[A1111Sampler]]):
    """Samplers."""


class A1111Schedulers(RootModel[list[A1111Scheduler]]):
    """Schedule types."""


class A1111Upscalers(RootModel[list[A1111Upscaler]]):
    """Upscalers; the first does nothing."""


class A1111Names(RootModel[list[A1111Named]]):
    """Names."""


class A1111Loras(RootModel[list[A1111Lora]]):
    """LoRAs."""


@router.get(
    "/sd-models",
    summary="Checkpoints",
    operation_id="a1111_sd_models",
    **documented(
        "Those that are served.",
        A1111Models,
        [
            {
                "title": "demo",
                "model_name": "demo",
                "hash": None,
                "sha256": None,
                "filename": "demo",
                "config": None,
            }
        ],
    ),
)
async def sd_models(request: Request) -> Response:
    """The checkpoints that a worker serves now; all of the catalog while there is none."""
    gate = await gateway(request)
    served = await gate.served() or {}
    able = [card for card in gate.catalog.values() if DRAWING & set(card.tasks)]
    cards = [card for card in able if served.get(card.name)] or able
    return answered(
        [
            A1111Model(title=card.name, model_name=card.name, filename=card.name).model_dump()
            for card in cards
        ]
    )


@router.get(
    "/sd-vae",
    summary="Autoencoders",
    operation_id="a1111_sd_vae",
    **documented(
        "Those of the folder VAE.", A1111Vaes, [{"model_name": "sharper", "filename": "sharper"}]
    ),
)
async def sd_vae(request: Request) -> Response:
    """Names for `sd_vae`, where the gateway can see the models' folder."""
    names = await _names(await gateway(request), vaes)
    return answered([{"model_name": name, "filename": name} for name in names])


@router.get(
    "/samplers",
    summary="Samplers",
    operation_id="a1111_samplers",
    **documented(
        "All of them.",
        A1111Samplers,
        [{"name": "Euler a", "aliases": ["k_euler_a", "k_euler_ancestral"], "options": {}}],
    ),
)
async def samplers(request: Request) -> Response:
    """By A1111's names; combined ones, such as `DPM++ 2M Karras`, are read too."""
    return answered(
        [
            {"name": name, "aliases": _aliases(sampler), "options": {}}
            for sampler, name in SAMPLER_NAMES.items()
        ]
    )


@router.get(
    "/schedulers",
    summary="Schedule types",
    operation_id="a1111_schedulers",
    **documented(
        "How sigmas can be spaced.",
        A1111Schedulers,
        [A1111Scheduler(name="karras", label="Karras").model_dump()],
    ),
)
async def schedulers(request: Request) -> Response:
    """`automatic` is A1111's choice for the sampler."""
    return answered(
        [A1111Scheduler(name=each.name, label=each.label).model_dump() for each in OFFERED]
    )


@router.get(
    "/upscalers",
    summary="Upscalers",
    operation_id="a1111_upscalers",
    **documented("`None` first.", A1111Upscalers, [A1111Upscaler(name=NO_UPSCALER).model_dump()]),
)
async def upscalers(request: Request) -> Response:
    """Pillow's, and checkpoints that upscale and are served."""
    names = [NO_UPSCALER, LANCZOS, NEAREST, *await x4_checkpoints(await gateway(request))]
    return answered([A1111Upscaler(name=name).model_dump() for name in names])


@router.get(
    "/latent-upscale-modes",
    summary="What hires fix can do with latents",
    operation_id="a1111_latent_upscale_modes",
    **documented("One way.", A1111Names, [{"name": LATENT}]),
)
async def latent_upscale_modes(request: Request) -> Response:
    """Latents are enlarged bilinearly; with any other upscaler the picture is."""
    return answered([{"name": LATENT}])


@router.get(
    "/loras",
    summary="LoRAs",
    operation_id="a1111_loras",
    **documented(
        "Those of the folder Lora.",
        A1111Loras,
        [{"name": "pixel-art", "alias": "pixel-art", "path": "pixel-art", "metadata": {}}],
    ),
)
async def list_loras(request: Request) -> Response:
    """Names for `<lora:name:scale>`, where the gateway can see the models' folder."""
    names = await _names(await gateway(request), loras)
    return answered([A1111Lora(name=name, alias=name, path=name).model_dump() for name in names])


@router.get(
    "/embeddings",
    summary="Embeddings",
    operation_id="a1111_embeddings",
    **documented("By name.", A1111Embeddings, {"loaded": {}, "skipped": {}}),
)
async def embeddings(request: Request) -> Response:
    """Textual inversions are read by workers; which they have, the gateway does not know."""
    return answered({"loaded": {}, "skipped": {}})


async def x4_checkpoints(gate: Gateway) -> list[str]:
    """Those that upscale and have a worker that is ready."""
    served = await gate.served() or {}
    cards = gate.catalog.values()
    return [card.name for card in cards if Task.UPSCALE in card.tasks and served.get(card.name)]


def _aliases(sampler: Sampler) -> list[str]:
    return [alias for alias, meant in ALIASES.items() if meant is sampler] + [sampler.value]


async def _names(gate: Gateway, shelf: Callable[[Path], Shelf]) -> list[str]:
    models = gate.models
    if models is None or not models.is_dir():
        return []
    return await asyncio.to_thread(lambda: shelf(models).names)
