"""What a picture is expected to become, from what is known in the middle of its steps.

A noisy latent shows little. What the UNet predicts at a step stands for a clean one (Ho et al.
2020, equation 15; Salimans and Ho 2022 for v), and that can be decoded like a finished one. Knows
no prompts and no pictures; asks no generator for noise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from server.models.state import Glimpse, State
from server.stages import shown_after

SMALLEST_SIGNAL = 1e-8
"""Where a schedule ends in pure noise there is nothing to divide by."""


def planned(sampler: Any, timesteps: torch.Tensor, previews: int) -> dict[int, float]:
    """After how many steps a ticket is shown, and the signal of the step before. Asked while the
    sampler is new: what it knows may move to the device, where a look makes the host wait."""
    times = shown_after(previews, len(timesteps))
    return {done: signal(sampler, float(timesteps[done - 1])) for done in times}


def signal(sampler: Any, timestep: float) -> float:
    """How much of a sample's variance is the picture's, as the UNet was told: between two
    timesteps that it was trained with, too."""
    if not hasattr(sampler, "alphas_cumprod"):  # iPNDM's time is an angle
        return max(math.cos(timestep * math.pi / 2) ** 2, SMALLEST_SIGNAL)
    known = sampler.alphas_cumprod.numpy()
    return max(float(np.interp(timestep, np.arange(len(known)), known)), SMALLEST_SIGNAL)


def taken(state: State, guided: torch.Tensor) -> Glimpse | None:
    """Before the sampler's step, which moves on. None where it is not shown after that."""
    left = state.shown_after.get(state.steps_done + 1)
    if left is None:
        return None
    return Glimpse(state.seen(), guided, left)


def expected(state: State) -> torch.Tensor:
    """The clean latents (1, channels, h, w) after a step whose glimpse was taken."""
    assert state.glimpse is not None
    predicts = state.sampler.config.get("prediction_type", "epsilon")
    latents, kept = clean(state.glimpse, predicts), state.canvas.kept
    if kept is None:
        return latents
    return (1 - kept.mask) * kept.latents + kept.mask * latents


def clean(glimpse: Glimpse, predicts: str) -> torch.Tensor:
    """What the prediction says of the sample without its noise: (1, channels, h, w), float32.
    `predicts`: diffusers' prediction type."""
    sample, prediction = glimpse.sample.float(), glimpse.prediction.float()
    picture, noise = math.sqrt(glimpse.signal), math.sqrt(1 - glimpse.signal)
    if predicts == "epsilon":
        return (sample - noise * prediction) / picture
    if predicts == "v_prediction":
        return picture * sample - noise * prediction
    if predicts == "sample":
        return prediction
    raise ValueError(f"nothing is known of a clean picture from {predicts!r}")
