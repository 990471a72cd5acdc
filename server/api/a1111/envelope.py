"""Errors as the A1111 web UI words them."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field

from server.errors import (
    DarkroomError,
    NotFound,
    OutOfMemory,
    RequestError,
    Unauthenticated,
    Unavailable,
    UnknownCheckpoint,
)

BASIC = 'Basic realm="Darkroom", charset="UTF-8"'

THEIRS = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "image": "init_images",
    "mask_image": "mask",
    "strength": "denoising_strength",
    "num_images": "batch_size",
    "clip_skip": "CLIP_stop_at_last_layers",
    "vae": "sd_vae",
    "sigmas": "scheduler",
    "sampler": "sampler_name",
    "checkpoint": "sd_model_checkpoint",
    "padding_mask_crop": "inpaint_full_res_padding",
    "hires.width": "hr_resize_x",
    "hires.height": "hr_resize_y",
    "hires.strength": "denoising_strength",
    "refiner.checkpoint": "refiner_checkpoint",
    "refiner.switch_at": "refiner_switch_at",
    "switch_at": "refiner_switch_at",
}
"""What our fields are called behind this door."""


class A1111Error(BaseModel):
    """`error` is the kind, `detail` and `errors` are for people."""

    error: str
    detail: str
    body: str = ""
    errors: str
    code: str = Field(description="Stable; A1111 has none.")


def envelope(error: DarkroomError) -> tuple[int, BaseModel, dict[str, str]]:
    """Status, body and headers."""
    fields = "; ".join(_theirs(message, field) for field, message in error.errors)
    detail = fields or error.message
    body = A1111Error(error=_kind(error), detail=detail, errors=detail, code=error.code)
    missing = isinstance(error, NotFound | UnknownCheckpoint)
    # Its clients send a name and a password, or nothing.
    asked = {"WWW-Authenticate": BASIC} if isinstance(error, Unauthenticated) else {}
    return 404 if missing else error.status, body, asked


def _kind(error: DarkroomError) -> str:
    """A1111 names the exception; some clients look for the one about memory."""
    if isinstance(error, OutOfMemory):
        return "OutOfMemoryError"
    if isinstance(error, RequestError | Unavailable):
        return "HTTPException"
    return type(error).__name__


def _theirs(message: str, field: str) -> str:
    """The sentence under the name that the caller knows the field by."""
    name = THEIRS.get(field)
    return re.sub(rf"^{re.escape(field)}\b", name, message) if name else message
