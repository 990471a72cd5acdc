"""What leaves a model, on its way from the device to the host. Knows no model.

A picture also says whether it can be one. Half-precision autoencoders overflow, SDXL's above all:
to NaN or infinity, or to one colour or black from edge to edge, which nothing photographed or
painted is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from server.errors import NotFinite
from server.models.device import on_device
from server.models.state import Finish

NO_LATENTS = (
    "its latents became NaN or infinite while it was denoised: try a lower guidance_scale, another"
    " sampler or fewer loras; the operator may compute in float32 (DARKROOM_DTYPE)"
)
NO_PICTURE = (
    "the autoencoder made NaN or infinity of it: try another one (vae) or a lower guidance_scale;"
    " the operator may compute in float32 (DARKROOM_DTYPE)"
)
DARKEST_MEAN = 1.0
"""Of 255. Below, a picture is black whatever a few of its pixels are."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image that may still be in the making on the device."""

    pixels: torch.Tensor  # (height, width, 3) uint8
    finite: torch.Tensor  # () bool
    flat: torch.Tensor  # () bool
    finish: Finish | None = None

    def array(self) -> NDArray[np.uint8]:
        """Wait for the device and copy: (height, width, 3).

        Raises:
            NotFinite: the image held NaN or infinity.
        """
        with on_device():
            if not self.finite.item():
                raise NotFinite(NO_PICTURE)
            array: NDArray[np.uint8] = self.pixels.cpu().numpy()
        return array if self.finish is None else self.finish(array)

    @property
    def blank(self) -> bool:
        """Whether all that was drawn is one colour or black, before anything is laid over it.
        Waits for the device."""
        with on_device():
            return bool(self.flat.item())


@dataclass(frozen=True, slots=True)
class Latents:
    """One ticket's latents, for the stage that comes after."""

    latents: torch.Tensor  # (channels, h, w)

    def array(self) -> NDArray[np.float32]:
        """Wait for the device and copy: (channels, h, w).

        Raises:
            NotFinite: they held NaN or infinity.
        """
        with on_device():
            array: NDArray[np.float32] = self.latents.float().cpu().numpy()
        if not np.isfinite(array).all():
            raise NotFinite(NO_LATENTS)
        return array

    @property
    def blank(self) -> bool:
        """Latents are no picture yet."""
        return False


def to_latents(latents: torch.Tensor) -> list[Latents]:
    """Latents of (B, channels, h, w), each for itself."""
    return [Latents(each) for each in latents.unbind()]


def to_pictures(images: torch.Tensor, finish: Sequence[Finish | None]) -> list[Picture]:
    """Images of (B, 3, height, width) in -1 to 1, rounded as diffusers' VaeImageProcessor does."""
    finite = torch.isfinite(images).flatten(1).all(dim=1)  # (B,)
    unit = (images * 0.5 + 0.5).clamp(0, 1)
    pixels = (unit.permute(0, 2, 3, 1).float() * 255).round().to(torch.uint8).contiguous()
    told = zip(pixels.unbind(), finite.unbind(), _flat(pixels).unbind(), finish, strict=True)
    return [Picture(*each) for each in told]


def _flat(pixels: torch.Tensor) -> torch.Tensor:
    """Which of (B, height, width, 3) are one colour, or black: (B,)."""
    one_colour = (pixels == pixels[:, :1, :1]).flatten(1).all(dim=1)
    return one_colour | (pixels.flatten(1).float().mean(dim=1) < DARKEST_MEAN)
