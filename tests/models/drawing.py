"""Draws with our families as an engine would, and tells how far two drawings are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from server.models.diffusion import LatentDiffusion
from server.models.state import State
from server.pixels import Inputs
from server.spec import AnySpec
from server.stages import Stage

NOTHING = Inputs()


@dataclass
class Guest:
    """A ticket that joins a batch at a step."""

    drawn: AnySpec | Stage
    joins: int
    inputs: Inputs = NOTHING


def prepare(
    denoiser: LatentDiffusion, drawn: AnySpec | Stage, index: int = 0, inputs: Inputs = NOTHING
) -> State:
    """Image `index` of a whole spec or of a stage of one."""
    stage = drawn if isinstance(drawn, Stage) else Stage(spec=drawn)
    return denoiser.prepare(stage, index, inputs)


def step(denoiser: LatentDiffusion, states: Sequence[State]) -> None:
    """One UNet call for all of them."""
    for state, prediction in zip(states, denoiser.predict(states), strict=True):
        denoiser.advance(state, prediction)


def draw(
    denoiser: LatentDiffusion, drawn: AnySpec | Stage, index: int = 0, inputs: Inputs = NOTHING
) -> State:
    """To its last step, alone."""
    state = prepare(denoiser, drawn, index, inputs)
    while state.steps_done < state.steps_total:
        step(denoiser, [state])
    return state


def draw_together(denoiser: LatentDiffusion, guests: Sequence[Guest]) -> list[State]:
    """One UNet call a step for all who have come and not left."""
    states: dict[int, State] = {}
    for now in range(200):
        for number, guest in enumerate(guests):
            if guest.joins == now:
                states[number] = prepare(denoiser, guest.drawn, 0, guest.inputs)
        present = [s for s in states.values() if s.steps_done < s.steps_total]
        if len(states) == len(guests) and not present:
            break
        step(denoiser, present)
    return [states[number] for number in range(len(guests))]


def decoded(denoiser: LatentDiffusion, state: State) -> NDArray[np.uint8]:
    """The finished picture: (height, width, 3)."""
    array = denoiser.decode([state])[0].array()
    assert array.dtype == np.uint8
    return array.astype(np.uint8, copy=False)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def a_picture(width: int = 64, height: int = 64) -> NDArray[np.uint8]:
    """Three slopes, one in each colour: (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    slopes = (255 * x // width, 255 * y // height, (3 * x + 5 * y) % 256)
    return np.stack(slopes, axis=-1).astype(np.uint8)


def a_mask(width: int = 64, height: int = 64) -> NDArray[np.uint8]:
    """A rectangle off the middle: (height, width)."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 5 * height // 8, width // 8 : 3 * width // 4] = 255
    return mask


def a_depth(width: int = 64, height: int = 64) -> NDArray[np.float32]:
    """A hill: (height, width)."""
    y, x = np.mgrid[-1 : 1 : 1j * height, -1 : 1 : 1j * width]
    return np.exp(-2 * (x**2 + y**2) + 0.3 * x).astype(np.float32)
