"""What a checkpoint draws when nobody asks for anything: for warming up, and for trying it out."""

from __future__ import annotations

from typing import Any

import numpy as np

from server.catalog import Card
from server.pixels import Inputs
from server.spec import (
    MAX_SEED,
    SPEC,
    AnySpec,
    SdxlConditioning,
    Task,
    Upload,
    Upscale,
)
from server.stages import UPSCALED, Stage

WARM_SEED = MAX_SEED - 1024


def native_stage(card: Card, **changes: Any) -> Stage:
    """The card's first task with its defaults, at its native size, guided."""
    return Stage(spec=_spec(card, changes))


def native_inputs(stage: Stage) -> Inputs:
    """A grey picture to start from, half of it masked, and a slope for its depth."""
    width, height = stage.spec.width, stage.spec.height
    if isinstance(stage.spec, Upscale):
        width, height = width // UPSCALED, height // UPSCALED
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 255
    slope = np.linspace(0, 1, width, dtype=np.float32)
    return Inputs(
        image=np.full((height, width, 3), 128, np.uint8),
        mask=mask,
        depth=np.broadcast_to(slope, (height, width)).copy(),
    )


def _spec(card: Card, changes: dict[str, Any]) -> AnySpec:
    defaults, task, size = card.defaults, card.tasks[0], card.native_size
    common = {
        "task": task,
        "checkpoint": card.name,
        "prompt": "",
        "negative_prompt": defaults.negative_prompt,
        "width": size,
        "height": size,
        "num_images": 1,
        "num_inference_steps": defaults.num_inference_steps,
        "guidance_scale": max(2.0, defaults.guidance_scale),
        "guidance_rescale": 0.0,
        "eta": 0.0,
        "sampler": defaults.sampler,
        "sigmas": defaults.sigmas,
        "seed": WARM_SEED,
        "clip_skip": defaults.clip_skip,
        "output_format": defaults.output_format,
        "priority": 0,
        "deadline_seconds": defaults.deadline_seconds,
        "sdxl": _sizes(size) if card.family == "sdxl" else None,
    }
    return SPEC.validate_python(common | _task_fields(task, size) | changes)


def _task_fields(task: Task, size: int) -> dict[str, Any]:
    picture = Upload(key="", sha256="", width=size, height=size)
    starts = {"image": picture, "strength": 1.0}
    fields: dict[Task, dict[str, Any]] = {
        Task.TEXT_TO_IMAGE: {},
        Task.IMAGE_TO_IMAGE: starts,
        Task.INPAINTING: starts
        | {"mask_image": picture, "padding_mask_crop": None, "keep_outside": False},
        Task.DEPTH_TO_IMAGE: starts | {"depth_map": picture},
        Task.UPSCALE: {"image": picture, "noise_level": 20},
    }
    return fields[task]


def _sizes(size: int) -> SdxlConditioning:
    whole, corner = (size, size), (0, 0)
    return SdxlConditioning(
        prompt_2="",
        negative_prompt_2="",
        original_size=whole,
        crops_coords_top_left=corner,
        target_size=whole,
        negative_original_size=whole,
        negative_crops_coords_top_left=corner,
        negative_target_size=whole,
        aesthetic_score=6.0,
        negative_aesthetic_score=2.5,
    )
