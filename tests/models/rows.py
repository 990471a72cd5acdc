"""What the conformance tables compare: every kind of checkpoint with its tasks, every sampler,
every kind of guidance. Draws and measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from server.pixels import Inputs
from server.spec import AnySpec, Sampler, SdxlConditioning, Task
from server.stages import Handover, Stage
from tests import builders
from tests.models.drawing import NOTHING, a_depth, a_mask, a_picture

GUIDANCE: tuple[dict[str, float], ...] = (
    {"guidance_scale": 1.0},
    {"guidance_scale": 4.0},
    {"guidance_scale": 6.0, "guidance_rescale": 0.7},
)
"""None, classifier-free, and rescaled."""
ROUNDS = range(len(GUIDANCE))
"""In each, every row has every sampler once. In all together, every one with every guidance."""

PAINTED = Inputs(image=a_picture(), mask=a_mask())
LATENTS = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3)).numpy()
SWITCH_AT = 0.6


@dataclass(frozen=True, eq=False)
class Row:
    """A kind of checkpoint, and what it is asked for."""

    replica: str
    task: Task
    make: Callable[..., AnySpec]
    inputs: Inputs = NOTHING
    what: str = ""
    share: tuple[tuple[str, Any], ...] = ()
    """Fields of the stage."""

    @property
    def name(self) -> str:
        """Of the task, and which variety of it."""
        return f"{self.task} {self.what}".strip()

    @property
    def noised(self) -> bool:
        """Whether noise is added to a picture, even at full strength."""
        starts_from_noise = {Task.TEXT_TO_IMAGE, Task.UPSCALE}
        own_mask = self.task is Task.INPAINTING and self.replica.endswith("inpainting")
        return self.task not in starts_from_noise and not own_mask

    @property
    def rescaled_by_us(self) -> bool:
        """Whether diffusers' pipeline has no guidance rescale, so that the oracle adds it."""
        return self.replica.startswith("sd-") and self.task is not Task.TEXT_TO_IMAGE


@dataclass(frozen=True, eq=False)
class Case:
    """One drawing, and when it joins the others."""

    row: Row
    sampler: Sampler
    stage: Stage
    joins: int


def why_not(row: Row, sampler: Sampler) -> str | None:
    """The footnote that says why there is nothing to compare."""
    if sampler is not Sampler.IPNDM:
        return None
    if row.share:
        return "share"
    return "noise" if row.noised else None


def _sizes(side: int) -> SdxlConditioning:
    return SdxlConditioning(
        prompt_2="in oil",
        negative_prompt_2="",
        original_size=(2 * side, side),
        crops_coords_top_left=(8, 0),
        target_size=(side, side),
        negative_original_size=(2 * side, side),
        negative_crops_coords_top_left=(8, 0),  # diffusers reads it for text-to-image only
        negative_target_size=(side, side),
        aesthetic_score=6.5,
        negative_aesthetic_score=2.0,
    )


_SMALL = {"width": 64, "height": 64}
_SDXL = {**_SMALL, "sdxl": _sizes(64)}
_PAINTING = {"keep_outside": False}


def _plain(replica: str, **fields: Any) -> tuple[Row, ...]:
    """The three tasks of a UNet without extra channels."""
    return (
        Row(replica, Task.TEXT_TO_IMAGE, partial(builders.a_spec, **fields)),
        Row(replica, Task.IMAGE_TO_IMAGE, partial(builders.an_image_to_image, **fields), PAINTED),
        _painted(replica, **fields),
    )


def _painted(replica: str, **fields: Any) -> Row:
    make = partial(builders.an_inpainting, **fields, **_PAINTING)
    return Row(replica, Task.INPAINTING, make, PAINTED)


def _depth(what: str, inputs: Inputs, **fields: Any) -> Row:
    make = partial(builders.a_depth_to_image, **_SMALL, **fields)
    return Row("sd-v2-depth", Task.DEPTH_TO_IMAGE, make, inputs, what)


ROWS: tuple[Row, ...] = (
    *_plain("sd-v1", **_SMALL),
    _painted("sd-v1-inpainting", **_SMALL),
    *_plain("sd-v2-base", **_SMALL),
    *_plain("sd-v2", **_SMALL),
    _painted("sd-v2-inpainting", **_SMALL),
    _depth("(map sent)", Inputs(image=a_picture(), depth=a_depth())),
    _depth("(map estimated)", Inputs(image=a_picture()), depth_map=None),
    Row(
        "sd-x4-upscaler",
        Task.UPSCALE,
        partial(builders.an_upscale, **_SMALL),
        Inputs(image=a_picture(16, 16)),
    ),
    *_plain("sdxl-base", **_SDXL),
    Row(
        "sdxl-base",
        Task.TEXT_TO_IMAGE,
        partial(builders.a_spec, **_SDXL),
        what="(first expert)",
        share=(("end", SWITCH_AT), ("gives", Handover.LATENTS)),
    ),
    _painted("sdxl-inpainting", **_SDXL),
    Row(
        "sdxl-refiner",
        Task.IMAGE_TO_IMAGE,
        partial(builders.an_image_to_image, **_SDXL),
        PAINTED,
    ),
    Row(
        "sdxl-refiner",
        Task.IMAGE_TO_IMAGE,
        partial(builders.an_image_to_image, **_SDXL),
        Inputs(latents=LATENTS),
        what="(second expert)",
        share=(("begin", SWITCH_AT), ("takes", Handover.LATENTS)),
    ),
)
REPLICAS = tuple(dict.fromkeys(row.replica for row in ROWS))


def cases(replica: str, turn: int) -> Iterator[Case]:
    """Every row of a checkpoint with every sampler: its own steps, seed, guidance and strength."""
    for i, row in enumerate(r for r in ROWS if r.replica == replica):
        for j, sampler in enumerate(Sampler):
            guidance = GUIDANCE[(i + j + turn) % len(GUIDANCE)]
            fields: dict[str, Any] = {
                "sampler": sampler,
                "num_inference_steps": 4 + (i + j) % 2,
                "seed": 100 * i + j,
                "eta": 0.3 * (j % 2),
                "prompt": f"{j} red circles",
                "negative_prompt": "blurry" if (j + turn) % 2 else "",
            } | guidance
            if row.task not in {Task.TEXT_TO_IMAGE, Task.UPSCALE}:
                fields["strength"] = 1.0 if sampler is Sampler.IPNDM else (0.5, 0.8, 1.0)[turn]
            stage = Stage(spec=row.make(**fields), **dict(row.share))
            yield Case(row, sampler, stage, joins=(3 * i + j) % 4)
