"""Decoded images on their way from the device to the host. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from server.errors import NotFinite
from server.models.device import on_device


@dataclass(frozen=True, slots=True)
class Picture:
    """One image that may still be in the making on the device."""

    pixels: torch.Tensor  # (height, width, 3) uint8
    finite: torch.Tensor  # () bool

    def array(self) -> NDArray[np.uint8]:
        """Wait for the device and copy: (height, width, 3).

        Raises:
            NotFinite: the image held NaN or infinity.
        """
        with on_device():
            if not self.finite.item():
                raise NotFinite("the model produced NaN or infinity instead of an image")
            array: NDArray[np.uint8] = self.pixels.cpu().numpy()
            return array


def to_pictures(images: torch.Tensor) -> list[Picture]:
    """Images of (B, 3, height, width) in -1 to 1, rounded as diffusers' VaeImageProcessor does."""
    finite = torch.isfinite(images).flatten(1).all(dim=1)  # (B,)
    unit = (images * 0.5 + 0.5).clamp(0, 1)
    pixels = (unit.permute(0, 2, 3, 1).float() * 255).round().to(torch.uint8).contiguous()
    return [Picture(*pair) for pair in zip(pixels.unbind(), finite.unbind(), strict=True)]
