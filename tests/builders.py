"""One builder per noun; keywords change only what a test is about."""

from __future__ import annotations

import time
import uuid
from typing import Any

from server.spec import (
    AnySpec,
    DepthToImage,
    Enlarged,
    Hires,
    ImageToImage,
    Inpainting,
    OutputFormat,
    Refiner,
    Sampler,
    Sigmas,
    TextToImage,
    Upload,
    Upscale,
    Upscaler,
)
from server.stages import stages
from server.workers.stage import Claim, Past

COMMON: dict[str, Any] = {
    "checkpoint": "demo",
    "prompt": "a red circle on a blue background",
    "negative_prompt": "",
    "width": 128,
    "height": 128,
    "num_images": 1,
    "num_inference_steps": 4,
    "guidance_scale": 4.0,
    "guidance_rescale": 0.0,
    "eta": 0.0,
    "sampler": Sampler.EULER,
    "sigmas": Sigmas.DEFAULT,
    "seed": 1,
    "clip_skip": 0,
    "output_format": OutputFormat.PNG,
    "priority": 0,
    "deadline_seconds": 60.0,
    "strict": False,
}


def a_spec(**changes: Any) -> TextToImage:
    """A small guided text-to-image spec of the demo checkpoint."""
    return TextToImage(**(COMMON | changes))


def an_upload(key: str = "image", **changes: Any) -> Upload:
    """A picture of the demo's size that a caller sent."""
    fields = {"key": key, "sha256": 64 * "0", "width": 128, "height": 128}
    return Upload(**(fields | changes))


def an_image_to_image(**changes: Any) -> ImageToImage:
    """Half of the steps, over a picture in the store under `image`."""
    return ImageToImage(**(COMMON | {"image": an_upload(), "strength": 0.5} | changes))


def an_inpainting(**changes: Any) -> Inpainting:
    """Over `image` where `mask` is white."""
    fields = {
        "image": an_upload(),
        "mask_image": an_upload("mask"),
        "strength": 1.0,
        "padding_mask_crop": None,
        "keep_outside": True,
    }
    return Inpainting(**(COMMON | fields | changes))


def a_depth_to_image(**changes: Any) -> DepthToImage:
    """Over `image`, with the depth in `depth`."""
    fields = {"image": an_upload(), "depth_map": an_upload("depth"), "strength": 0.8}
    return DepthToImage(**(COMMON | fields | changes))


def an_upscale(**changes: Any) -> Upscale:
    """Of `image`, to the demo's size."""
    return Upscale(**(COMMON | {"image": an_upload(), "noise_level": 20} | changes))


def a_hires(**changes: Any) -> Hires:
    """Twice the demo's size."""
    fields = {
        "width": 256,
        "height": 256,
        "enlarged": Enlarged.LATENTS,
        "strength": 0.5,
        "num_inference_steps": 4,
    }
    return Hires(**(fields | changes))


def a_refiner(**changes: Any) -> Refiner:
    """An ensemble of experts that switches after three quarters of the schedule."""
    fields = {
        "checkpoint": "refiner",
        "switch_at": 0.75,
        "strength": 0.3,
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "sampler": Sampler.DDIM,
        "sigmas": Sigmas.DEFAULT,
    }
    return Refiner(**(fields | changes))


def an_upscaler(**changes: Any) -> Upscaler:
    """To four times the size."""
    fields = {
        "checkpoint": "upscaler",
        "noise_level": 20,
        "num_inference_steps": 4,
        "guidance_scale": 9.0,
        "sampler": Sampler.DDIM,
        "sigmas": Sigmas.DEFAULT,
    }
    return Upscaler(**(fields | changes))


def a_claim(id: str = "gen_" + 32 * "0", **changes: Any) -> Claim:
    """A claim made now of the first stage of a text-to-image generation accepted now."""
    return a_claim_of(a_spec(**changes), id)


def a_claim_of(spec: AnySpec, id: str = "gen_" + 32 * "0", past: Past | None = None) -> Claim:
    """A claim made now of the first stage, or of that which follows `past`."""
    now, drawn, past = time.time(), stages(spec), past or Past()
    number = len(past.handed)
    return Claim(
        id=id,
        execution=uuid.uuid4().hex,
        whole=spec,
        stage=drawn[number],
        created_at=now,
        started_at=now,
        queued_at=now,
        following=drawn[number + 1 :],
        past=past,
    )
