"""A denoiser that draws without a model, for tests and for loads on the control plane.

It keeps the engine's contract in full: pictures depend on the spec alone, a step takes the time it
is told to. Nothing here knows torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.pixels import Inputs
from server.spec import Spec, Warn
from server.stages import Handover, Stage, shown_after


@dataclass(slots=True)
class SimulatedState:
    """A ticket whose only tensor is its seed."""

    spec: Spec
    seed: int
    gives_latents: bool = False
    steps_done: int = 0

    @property
    def bucket(self) -> Hashable:
        """Pictures of one size share a step, where all or none of them take a shallow one."""
        return self.spec.width, self.spec.height, self.shallow

    @property
    def decode_bucket(self) -> Hashable:
        """And those that give the same."""
        return self.spec.width, self.spec.height, self.gives_latents

    @property
    def rows(self) -> int:
        """Two with guidance, as long as that lasts."""
        return 2 if self.steps_done < self.spec.guided_calls(self.steps_total) else 1

    @property
    def shallow(self) -> bool:
        """Of its next step."""
        due = self.steps_done % self.spec.cache_interval != 0
        return due and self.steps_done < self.steps_total

    @property
    def pixels(self) -> int:
        """Of the picture."""
        return self.spec.width * self.spec.height

    @property
    def steps_total(self) -> int:
        """One call for each step."""
        return self.spec.num_inference_steps

    @property
    def previews_due(self) -> int:
        """Of its steps."""
        times = shown_after(self.spec.previews, self.steps_total)
        return sum(step <= self.steps_done for step in times)

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """There is nothing to warn of."""
        return ()


@dataclass(frozen=True, slots=True)
class FlatPicture:
    """One colour, drawn from the seed."""

    width: int
    height: int
    seed: int

    def array(self) -> NDArray[np.uint8]:
        """Shape (height, width, 3)."""
        colour = np.random.default_rng(self.seed).integers(0, 256, 3, dtype=np.uint8)
        return np.broadcast_to(colour, (self.height, self.width, 3)).copy()

    @property
    def blank(self) -> bool:
        """One colour is what it was asked for."""
        return False


@dataclass(frozen=True, slots=True)
class FlatLatents:
    """One value, the seed."""

    width: int
    height: int
    seed: int

    def array(self) -> NDArray[np.float32]:
        """Shape (4, height / 8, width / 8)."""
        return np.full((4, self.height // 8, self.width // 8), self.seed, np.float32)

    @property
    def blank(self) -> bool:
        """Latents are no picture yet."""
        return False


@dataclass(slots=True)
class SimulatedDenoiser:
    """`step_seconds` gives the seconds of a UNet call by its rows."""

    step_seconds: Callable[[int], float] = lambda rows: 0.0

    def prepare(self, stage: Stage, index: int, inputs: Inputs) -> SimulatedState:
        """Nothing to encode. A stage that takes what another gave must be given it."""
        given = {Handover.LATENTS: inputs.latents, Handover.PICTURES: inputs.image}
        if stage.takes in given and given[stage.takes] is None:
            raise AssertionError(f"no {stage.takes} were handed over")
        spec = stage.spec.alone(index)
        return SimulatedState(spec, spec.seed, stage.gives is Handover.LATENTS)

    def make_room(self) -> None:
        """Nothing is kept."""

    def predict(self, states: Sequence[SimulatedState]) -> Sequence[int]:
        """Takes its time."""
        time.sleep(self.step_seconds(sum(s.rows for s in states)))
        return [s.seed for s in states]

    def advance(self, state: SimulatedState, prediction: int) -> None:
        """One step further."""
        if prediction != state.seed:
            raise AssertionError("a ticket was given its neighbour's prediction")
        state.steps_done += 1

    def wait(self) -> None:
        """Calls return when they are done."""

    def decode(self, states: Sequence[SimulatedState]) -> Sequence[FlatPicture | FlatLatents]:
        """A picture of the state's seed."""
        return [
            (FlatLatents if s.gives_latents else FlatPicture)(s.spec.width, s.spec.height, s.seed)
            for s in states
        ]

    def decode_again(self, state: SimulatedState) -> FlatPicture | None:
        """It cannot be done better."""
        return None

    def preview(self, states: Sequence[SimulatedState]) -> Sequence[FlatPicture]:
        """It knows from the first step on."""
        return [FlatPicture(s.spec.width, s.spec.height, s.seed) for s in states]

    def unsafe(self, pixels: NDArray[np.uint8]) -> bool | None:
        """Nothing checks."""
        return None
