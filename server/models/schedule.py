"""Which of a sampler's steps a stage takes. Knows neither models nor pictures."""

from __future__ import annotations

from typing import Any

import torch

from server.errors import InvalidSpec
from server.spec import AnySpec, DepthToImage, ImageToImage, Inpainting
from server.stages import Stage


def begin(sampler: Any, stage: Stage) -> torch.Tensor:
    """The timesteps of the stage, of shape (steps,); may be none. The sampler stands at the first.

    As in diffusers: `strength` leaves out the first steps (SDEdit), and the two experts of an
    ensemble share the schedule at one timestep.

    Raises:
        InvalidSpec: this sampler has no such timestep.
    """
    timesteps: torch.Tensor = sampler.timesteps
    if stage.begin:
        first = _steps_before(sampler, stage.begin)
    else:
        first = _steps_skipped(stage.spec) * sampler.order
    if first and hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(first)
    if stage.end < 1:
        return timesteps[first:][timesteps[first:] >= _border(sampler, stage.end)]
    return timesteps[first:]


def _steps_skipped(spec: AnySpec) -> int:
    if not isinstance(spec, ImageToImage | Inpainting | DepthToImage):
        return 0
    steps = spec.num_inference_steps
    return steps - min(int(steps * spec.strength), steps)


def _steps_before(sampler: Any, share: float) -> int:
    """Timesteps that the expert before has taken."""
    timesteps = sampler.timesteps
    left = int((timesteps < _border(sampler, share)).sum())
    if sampler.order == 2 and left % 2 == 0:
        left += 1  # not between the two halves of a step, though the expert before may have been
    return len(timesteps) - left


def _border(sampler: Any, share: float) -> int:
    """The timestep at a share of the schedule.

    Raises:
        InvalidSpec: this sampler's are none of the timesteps that the UNet was trained with.
    """
    if not hasattr(sampler, "add_noise"):
        raise InvalidSpec(
            "this sampler cannot share its schedule with a refiner; choose another", field="sampler"
        )
    trained: int = sampler.config.num_train_timesteps
    return round(trained - share * trained)
