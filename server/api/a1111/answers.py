"""What txt2img and img2img answer with: pictures in base64, and `info`, a document in a string."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from server import __version__
from server.api.a1111.noted import header, listed
from server.api.a1111.schemas import Drawing, PictureSent
from server.api.images import read_image
from server.api.negotiation import JSON
from server.broker import Generation
from server.infotext import SAMPLER_NAMES, infotext
from server.spec import AnySpec, Warn
from server.storage import ImageStore

PICTURES = {"init_images", "mask"}
"""What is echoed only on demand."""


class Images(BaseModel):
    """Pictures as A1111 sends them."""

    images: list[str] = Field(description="Files in base64, without `data:`.")
    parameters: dict[str, Any] = Field(description="The request.")
    info: str = Field(description="A JSON document as a string.")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a request is answered."""

    echo: dict[str, Any]
    warnings: list[Warn]
    with_images: bool
    task: str
    """What its caller calls it."""


def manner_of(sent: Drawing, warnings: list[Warn]) -> Manner:
    """As the request says, which is echoed without its pictures, unless it wants them."""
    with_pictures = isinstance(sent, PictureSent) and sent.include_init_images
    return Manner(
        echo=sent.model_dump(exclude=set() if with_pictures else PICTURES),
        warnings=warnings,
        with_images=sent.send_images is not False,
        task=sent.force_task_id or "",
    )


async def answer(manner: Manner, generation: Generation, store: ImageStore) -> Response:
    """The pictures of a generation that succeeded; of one that was interrupted, none."""
    noted = listed([*manner.warnings, *generation.warnings])
    images: list[bytes] = []
    if manner.with_images:
        images = [await read_image(store, image.key) for image in generation.images]
    body = {"parameters": manner.echo, "info": info(generation, noted)}
    content = await asyncio.to_thread(_written, images, body)
    headers = {"Darkroom-Generation-Id": generation.id, **header(noted)}
    return Response(content, headers=headers, media_type=JSON)


def info(generation: Generation, warnings: Iterable[Warn]) -> str:
    """What A1111 says of pictures, under its names."""
    spec = generation.spec
    count = spec.num_images
    seeds = [spec.seed + index for index in range(count)]
    said = {
        **_of_prompts(spec, count),
        **_of_seeds(seeds),
        "width": spec.width,
        "height": spec.height,
        "sampler_name": SAMPLER_NAMES[spec.sampler],
        "cfg_scale": spec.guidance_scale,
        "steps": spec.num_inference_steps,
        "batch_size": count,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": spec.checkpoint,
        "sd_model_hash": None,
        "sd_vae_name": spec.vae or None,
        "sd_vae_hash": None,
        "denoising_strength": _strength(spec),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [infotext(spec.alone(index), __version__) for index in range(count)],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(generation.created_at)),
        "clip_skip": spec.clip_skip + 1,
        "is_using_inpainting_conditioning": False,
        "version": f"darkroom {__version__}",
        "interrupted": not generation.images,
        "darkroom_generation": generation.id,
        "darkroom_warnings": [warning.model_dump() for warning in warnings],
    }
    return json.dumps(said, ensure_ascii=False)


def _of_prompts(spec: AnySpec, count: int) -> dict[str, Any]:
    return {
        "prompt": spec.prompt,
        "all_prompts": [spec.prompt] * count,
        "negative_prompt": spec.negative_prompt,
        "all_negative_prompts": [spec.negative_prompt] * count,
    }


def _of_seeds(seeds: list[int]) -> dict[str, Any]:
    """There are no variations of a seed here: each is its own."""
    return {
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": seeds[0],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
    }


def _strength(spec: AnySpec) -> float | None:
    if spec.hires is not None:
        return spec.hires.strength
    return getattr(spec, "strength", None)


def _written(images: list[bytes], body: dict[str, Any]) -> bytes:
    """Off the event loop: pictures are large."""
    texts = [base64.b64encode(image).decode() for image in images]
    return to_json({"images": texts, **body}, inf_nan_mode="null")
