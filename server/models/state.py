"""One ticket's picture in the making."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from server.models.autoencoder import Autoencoder
from server.models.blend import Blend
from server.models.conditioning import Conditioning
from server.models.probe import Probe
from server.models.recurrence import Recurrence
from server.spec import Spec, Warn

Finish = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""What is done to a decoded picture, on the host."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays as it was sent while the rest is drawn: a UNet without a mask channel is told
    after every step."""

    mask: torch.Tensor  # (1, 1, h, w), 1 is drawn, 0 is kept
    latents: torch.Tensor  # (1, channels, h, w), of the picture as it was sent
    noise: torch.Tensor  # (1, channels, h, w)


@dataclass(frozen=True, slots=True)
class Canvas:
    """How a ticket starts, and what its task adds to each step."""

    latents: torch.Tensor  # (1, channels, h, w)
    extra: torch.Tensor | None = None  # (1, more channels, h, w), beside the latents in each step
    class_label: torch.Tensor | None = None  # (1,), on the device
    kept: Kept | None = None
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What was known at a step after which a ticket is shown."""

    sample: torch.Tensor  # (1, channels, h, w), as the UNet saw it
    prediction: torch.Tensor  # (1, channels, h, w), guided
    signal: float
    """How much of the sample's variance is the picture's."""


@dataclass(slots=True)
class State:
    """`advance` alone changes it."""

    spec: Spec
    """Of this image alone."""
    sampler: Any
    timesteps: tuple[torch.Tensor, ...]  # () each, on the CPU, as the sampler wants them
    row_timesteps: tuple[torch.Tensor, ...]  # (rows,) each, on the device, as the UNet wants them
    canvas: Canvas
    conditioning: Conditioning
    step_arguments: dict[str, Any]
    recurrence: Recurrence | None
    """What the sampler does, written down; then it is not called any more."""
    guidance: torch.Tensor  # (1, 1, 1, 1), float32, on the device
    latents: torch.Tensor  # (1, channels, h, w)
    blend: Blend
    autoencoder: Autoencoder
    alike: Hashable
    """Tickets that agree in this can share a whole UNet call."""
    decode_bucket: Hashable
    pixels: int
    guided_calls: int
    """UNet calls with guidance, if it has any; what follows has one row."""
    gives_latents: bool = False
    steps_done: int = 0
    past: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    """Latents and guided prediction of as many steps as the recurrence looks back, last first."""
    shown_after: Mapping[int, float] = field(default_factory=dict)
    """Steps done, each time that it is shown, and the signal of the last of them."""
    glimpse: Glimpse | None = None
    """Of the last step, if it is shown after that."""
    probe: Probe | None = None
    """The last look at whether its latents are numbers."""
    found: torch.Tensor | None = None  # (rows, channels, h, w)
    """What its last whole UNet call found, for those that use it again."""

    @property
    def bucket(self) -> Hashable:
        """Of the next UNet call: a shallow one is none of those that others make whole."""
        return (self.alike, "shallow") if self.shallow else self.alike

    @property
    def shallow(self) -> bool:
        """Whether its next UNet call uses again what an earlier one found."""
        due = self.steps_done % self.spec.cache_interval != 0
        return due and self.steps_done < self.steps_total

    @property
    def finds(self) -> bool:
        """Whether what its next UNet call finds will be used again."""
        every = self.spec.cache_interval
        return every > 1 and not self.shallow and self.steps_done + 1 < self.steps_total

    @property
    def rows(self) -> int:
        """Of the next UNet call: two with guidance."""
        return self.conditioning.rows

    @property
    def steps_total(self) -> int:
        """UNet calls in all; the second-order samplers need two for one step."""
        return len(self.timesteps)

    def count_step(self) -> None:
        """One more is done; what the rest does not need is let go."""
        self.steps_done += 1
        if self.steps_done == self.steps_total:
            self.found = None
        elif self.steps_done == self.guided_calls:
            self.conditioning = self.conditioning.conditional
            self.row_timesteps = tuple(each[-1:] for each in self.row_timesteps)

    def seen(self) -> torch.Tensor:
        """The latents as the UNet sees them at this step: (1, channels, h, w)."""
        if self.recurrence is not None:
            scale = self.recurrence.scales[self.steps_done]
            return (self.latents * scale).to(self.latents.dtype)
        now = self.timesteps[self.steps_done]
        scaled: torch.Tensor = self.sampler.scale_model_input(self.latents, now)
        return scaled

    @property
    def previews_due(self) -> int:
        """How many times it was to be shown until now."""
        return sum(step <= self.steps_done for step in self.shown_after)

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """What was cut or ignored in the prompts."""
        return self.conditioning.warnings
