"""What A1111 has and Darkroom has not, answered as an A1111 without any of it would."""

from __future__ import annotations

import os
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, RootModel

from server.api.a1111.door import answered, documented, door
from server.api.a1111.following import EmptyObject, Nothing

router = door()


class EmptyList(RootModel[list[str]]):
    """A list of nothing."""


class A1111Scripts(BaseModel):
    """Scripts by what they work on."""

    txt2img: list[str]
    img2img: list[str]


class A1111Flags(BaseModel):
    """How it was started."""

    model_config = ConfigDict(extra="allow")

    api: bool


class A1111Memory(BaseModel):
    """Bytes of the gateway's host. Devices are the workers' affair."""

    ram: dict[str, Any]
    cuda: dict[str, Any]


EMPTY = {
    "hypernetworks": "Hypernetworks",
    "face-restorers": "Face restorers",
    "realesrgan-models": "RealESRGAN models",
    "prompt-styles": "Prompt styles",
    "script-info": "What scripts take",
    "extensions": "Extensions",
}
REFRESHED = {
    "refresh-checkpoints": "Look for checkpoints",
    "refresh-vae": "Look for autoencoders",
    "refresh-embeddings": "Look for embeddings",
    "refresh-loras": "Look for LoRAs",
}
RELOADED = {
    "unload-checkpoint": "Unload the checkpoint",
    "reload-checkpoint": "Load the checkpoint",
}
SCRIPTS: dict[str, Any] = {"txt2img": [], "img2img": []}
FLAGS: dict[str, Any] = {"api": True, "api_auth": None, "listen": False, "nowebui": True}
MEMORY: dict[str, Any] = {
    "ram": {"free": 8_000_000_000, "used": 8_000_000_000, "total": 16_000_000_000},
    "cuda": {"error": "unavailable"},
}


@router.get(
    "/scripts",
    summary="Scripts",
    operation_id="a1111_scripts",
    **documented("There are none.", A1111Scripts, SCRIPTS),
)
async def scripts(request: Request) -> Response:
    """None: `script_name` is refused, `alwayson_scripts` are ignored by name."""
    return answered(SCRIPTS)


@router.get(
    "/cmd-flags",
    summary="How it was started",
    operation_id="a1111_cmd_flags",
    **documented("A few flags.", A1111Flags, FLAGS),
)
async def cmd_flags(request: Request) -> Response:
    """What clients may look for; Darkroom's own settings are not shown."""
    return answered(FLAGS)


@router.get(
    "/memory",
    summary="Memory",
    operation_id="a1111_memory",
    **documented("Bytes.", A1111Memory, MEMORY),
)
async def memory(request: Request) -> Response:
    """Of the gateway's host; what a device has left is in the workers' metrics."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (page * os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    ram = {"free": free, "used": total - free, "total": total}
    return answered({"ram": ram, "cuda": {"error": "unavailable"}})


def _always(
    router: APIRouter, method: str, path: str, summary: str, why: str, body: Any, model: Any
) -> None:
    """A route that answers the same, whatever is asked."""

    async def route(request: Request) -> Response:
        return answered(body)

    route.__doc__ = why
    router.add_api_route(
        f"/{path}",
        route,
        methods=[method],
        summary=summary,
        operation_id=f"a1111_{path.replace('-', '_')}",
        **documented("Always this.", model, body),
    )


for path, summary in EMPTY.items():
    _always(router, "GET", path, summary, "There are none.", [], EmptyList)
for path, summary in REFRESHED.items():
    why = "Nothing to do: what comes while it runs is found."
    _always(router, "POST", path, summary, why, None, Nothing)
for path, summary in RELOADED.items():
    why = "Nothing to do: each worker keeps the checkpoint it serves."
    _always(router, "POST", path, summary, why, {}, EmptyObject)
