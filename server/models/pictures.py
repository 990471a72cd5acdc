"""What leaves a model, on its way from the device to the host. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from server.errors import NotFinite
from server.models.device import on_device
from server.models.state import Finish


@dataclass(frozen=True, slots=True)
class Picture:
    """One image that may still be in the making on the device."""

    pixels: torch.Tensor  # (height, width, 3) uint8
    finite: torch.Tensor  # () bool
    finish: Finish | None = None

    def array(self) -> NDArray[np.uint8]:
        """Wait for the device and copy: (height, width, 3).

        Raises:
            NotFinite: the image held NaN or infinity.
        """
        with on_device():
            if not self.finite.item():
                raise NotFinite("the model produced NaN or infinity instead of an image")
            array: NDArray[np.uint8] = self.pixels.cpu().numpy()
        return array if self.finish is None else self.finish(array)


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
            raise NotFinite("the model produced NaN or infinity instead of latents")
        return array


def to_latents(latents: torch.Tensor) -> list[Latents]:
    """Latents of (B, channels, h, w), each for itself."""
    return [Latents(each) for each in latents.unbind()]


def to_pictures(images: torch.Tensor, finish: Sequence[Finish | None]) -> list[Picture]:
    """Images of (B, 3, height, width) in -1 to 1, rounded as diffusers' VaeImageProcessor does."""
    finite = torch.isfinite(images).flatten(1).all(dim=1)  # (B,)
    unit = (images * 0.5 + 0.5).clamp(0, 1)
    pixels = (unit.permute(0, 2, 3, 1).float() * 255).round().to(torch.uint8).contiguous()
    return [Picture(*each) for each in zip(pixels.unbind(), finite.unbind(), finish, strict=True)]
