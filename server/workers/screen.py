"""What becomes of a picture that a safety checker has flagged. Pure: pixels in, pixels out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from server.catalog import Safety
from server.spec import Warn

BLURRED_SHARE = 1 / 12
"""Of the longer side: the radius past which nothing but patches of colour can be made out."""


def screened(pixels: NDArray[np.uint8], nsfw: bool | None, safety: Safety) -> NDArray[np.uint8]:
    """The picture as it may be shown: itself, blurred or black."""
    if nsfw and safety is Safety.BLUR:
        radius = max(pixels.shape) * BLURRED_SHARE
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    if nsfw and safety is Safety.BLOCK:
        return np.zeros_like(pixels)
    return pixels


def warnings_of(flags: Sequence[bool | None], safety: Safety) -> tuple[Warn, ...]:
    """What is said of pictures that are not shown as they were drawn."""
    done = {Safety.BLUR: ("nsfw_blurred", "blurred"), Safety.BLOCK: ("nsfw_blocked", "black")}
    if safety not in done:
        return ()
    code, shown = done[safety]
    return tuple(
        Warn(code=code, message=f"the safety checker flagged image {index}; it is {shown}")
        for index, nsfw in enumerate(flags)
        if nsfw
    )
