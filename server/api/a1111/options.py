"""Settings as A1111 has them. Here they hold for the caller who posted them, and nobody else."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict

from server.api import openapi
from server.api.a1111.door import answered, documented, door, read_body
from server.api.a1111.following import Nothing
from server.api.a1111.names import card_of, unsaid
from server.api.a1111.noted import header, listed, strangers
from server.api.a1111.schemas import Options
from server.api.a1111.settings import given, keep, settings_of, told
from server.api.deps import gateway
from server.errors import BadRequest, BrokerUnavailable, InvalidRequest, NotFound

router = door()

FIXED: dict[str, Any] = {
    "samples_save": False,
    "grid_save": False,
    "return_grid": False,
    "sd_checkpoint_hash": None,
    "sd_lora": "None",
    "upscaler_for_img2img": "None",
    "face_restoration_model": None,
    "face_restoration": False,
    "img2img_fix_steps": False,
    "img2img_background_color": "#ffffff",
    "enable_pnginfo": True,
    "eta_ddim": 0.0,
    "eta_ancestral": 1.0,
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_noise": 1.0,
    "prompt_attention": "Standard",
}
"""What clients look for and nobody can change."""

EXAMPLE: dict[str, Any] = {
    "sd_model_checkpoint": "demo",
    "sd_vae": "Automatic",
    "CLIP_stop_at_last_layers": 1,
    "samples_format": "png",
    "live_previews_enable": True,
    "show_progress_every_n_steps": 10,
    **FIXED,
}


class AllOptions(BaseModel):
    """Options that mean something here, and some that clients look for."""

    model_config = ConfigDict(extra="allow")

    sd_model_checkpoint: str
    sd_vae: str
    CLIP_stop_at_last_layers: int
    samples_format: str
    live_previews_enable: bool
    show_progress_every_n_steps: int


@router.get(
    "/options",
    summary="The caller's settings",
    operation_id="a1111_get_options",
    **documented("All of them.", AllOptions, EXAMPLE, BrokerUnavailable),
)
async def get_options(request: Request) -> Response:
    """Every setting at the value it has for this caller."""
    gate, session = await gateway(request), request.state.session
    return answered(told(gate, await settings_of(gate, session)) | FIXED)


@router.post(
    "/options",
    summary="Change the caller's settings",
    operation_id="a1111_set_options",
    openapi_extra=openapi.body_of(Options, {"sd_model_checkpoint": "demo"}),
    **documented(
        "They hold for this caller, for a week after they were used last.",
        Nothing,
        None,
        BadRequest,
        NotFound,
        InvalidRequest,
        BrokerUnavailable,
    ),
)
async def set_options(request: Request) -> Response:
    """Takes any part of the settings, or all that `GET` gave. `sd_model_checkpoint` chooses what
    draws this caller's pictures from now on; no worker loads anything for it."""
    gate, session = await gateway(request), request.state.session
    sent, _ = await read_body(request, Options)
    name = sent.sd_model_checkpoint
    if name is not None and not unsaid(name):
        card_of(name, gate.catalog, "sd_model_checkpoint")
    now = told(gate, await settings_of(gate, session))
    # What is posted back as it was is no wish of the caller's: it may be the checkpoint's own.
    changed = {name: value for name, value in given(sent).items() if value != now[name]}
    await keep(gate, session, changed)
    strange = (each for each in strangers(sent) if not _as_it_is(sent, each.field))
    return answered(None, header(listed(strange)))


def _as_it_is(sent: Options, name: str | None) -> bool:
    return name in FIXED and (sent.model_extra or {}).get(name) == FIXED[name]
