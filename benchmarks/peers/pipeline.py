"""diffusers as everybody's script has it. Knows no HTTP and nothing of Darkroom."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)

from benchmarks.peers.orders import Order, groups

SAMPLERS = {
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
}


class Pipeline:
    """A checkpoint in float32 on the CPU, quiet, in the memory layout that is quickest there."""

    def __init__(self, folder: Path) -> None:
        self._pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        self._pipeline.set_progress_bar_config(disable=True)
        for part in (self._pipeline.unet, self._pipeline.vae):
            part.to(memory_format=torch.channels_last)
        self._config = self._pipeline.scheduler.config

    def draw(self, orders: Sequence[Order]) -> list[bytes]:
        """One call for orders of one kind; their pictures as PNG, in order."""
        first = orders[0]
        self._pipeline.scheduler = SAMPLERS[first.sampler].from_config(self._config)
        images = self._pipeline(
            [order.prompt for order in orders],
            width=first.width,
            height=first.height,
            num_inference_steps=first.num_inference_steps,
            guidance_scale=first.guidance_scale,
            generator=[torch.Generator().manual_seed(order.seed) for order in orders],
        ).images
        return [_png(image) for image in images]

    def draw_mixed(self, orders: Sequence[Order], most: int) -> list[bytes]:
        """As few calls as the kinds allow, at most so many pictures each; in order."""
        pictures: dict[int, bytes] = {}
        for places in groups(orders, most):
            drawn = self.draw([orders[place] for place in places])
            pictures.update(zip(places, drawn, strict=True))
        return [pictures[place] for place in range(len(orders))]


def _png(image: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # type: ignore[attr-defined]
    return file.getvalue()
