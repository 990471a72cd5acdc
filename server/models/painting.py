"""The picture side of inpainting: crop, mask and overlay, as diffusers' VaeImageProcessor does it.

Runs on the host; knows no UNet and no latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from numpy.typing import NDArray
from PIL import Image

from server.errors import InvalidSpec
from server.models.state import Finish
from server.pixels import Inputs
from server.spec import Inpainting

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

# Sizes are multiples already, as the gateway made sure; a factor of 1 lets them be.
PICTURES = VaeImageProcessor(vae_scale_factor=1)
MASKS = VaeImageProcessor(
    vae_scale_factor=1, do_normalize=False, do_binarize=True, do_convert_grayscale=True
)


@dataclass(frozen=True, slots=True)
class Painting:
    """A picture and where it is drawn again."""

    picture: torch.Tensor  # (1, 3, height, width) in -1 to 1
    mask: torch.Tensor  # (1, 1, height, width), 1 is drawn, 0 is kept
    finish: Finish | None

    @property
    def masked(self) -> torch.Tensor:
        """The picture without what is drawn again: (1, 3, height, width)."""
        return self.picture * (self.mask < 0.5)


def to_tensor(image: NDArray[np.uint8] | None, width: int, height: int) -> torch.Tensor:
    """An image of any size to (1, 3, height, width) in -1 to 1, resized by Lanczos."""
    assert image is not None
    tensor: torch.Tensor = PICTURES.preprocess(Image.fromarray(image), height=height, width=width)
    return tensor


def painting(inputs: Inputs, spec: Inpainting) -> Painting:
    """What an inpainting spec works on.

    Raises:
        InvalidSpec: the mask is black everywhere where its surroundings were asked for.
    """
    assert inputs.image is not None
    assert inputs.mask is not None
    picture, mask = Image.fromarray(inputs.image), Image.fromarray(inputs.mask)
    box = _box(mask, spec)
    place = {
        "height": spec.height,
        "width": spec.width,
        "crops_coords": box,
        "resize_mode": "fill" if box else "default",
    }
    return Painting(
        PICTURES.preprocess(picture, **place),
        MASKS.preprocess(mask, **place),
        _finish(picture, mask, box, spec),
    )


def _box(mask: Image.Image, spec: Inpainting) -> Box | None:
    if spec.padding_mask_crop is None:
        return None
    if mask.getbbox() is None:
        raise InvalidSpec(
            "mask_image: is black everywhere, so padding_mask_crop has nothing to crop to",
            field="mask_image",
        )
    box: Box = PICTURES.get_crop_region(mask, spec.width, spec.height, pad=spec.padding_mask_crop)
    return box


def _finish(
    picture: Image.Image, mask: Image.Image, box: Box | None, spec: Inpainting
) -> Finish | None:
    """Lays what was sent over what was drawn, everywhere but under the mask."""
    if box is None and not spec.keep_outside:
        return None
    if box is None:
        picture = picture.resize((spec.width, spec.height), Image.Resampling.LANCZOS)
        mask = mask.resize((spec.width, spec.height), Image.Resampling.NEAREST)

    def overlay(drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
        whole = PICTURES.apply_overlay(mask, picture, Image.fromarray(drawn), box)
        return np.asarray(whole)

    return overlay
