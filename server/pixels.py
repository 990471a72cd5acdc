"""Pictures between bytes and arrays, and what is refused of them. Knows no model, HTTP or store."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 64 * 2**20
"""Far above what any checkpoint draws; larger ones are refused before they are decoded."""


class BadPicture(Exception):
    """Not a picture that can be used; the message goes on from the name of its field."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a ticket starts from, decoded. Absent ones are None."""

    image: NDArray[np.uint8] | None = None  # (h, w, 3)
    mask: NDArray[np.uint8] | None = None  # (h, w), 255 is drawn again, 0 is kept
    depth: NDArray[np.float32] | None = None  # (h, w), larger is nearer
    latents: NDArray[np.float32] | None = None  # (channels, h, w), as the autoencoder's, scaled


def open_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A PNG, JPEG or WebP, decoded in full and upright; animations are refused.

    Raises:
        BadPicture: it is none of them, cut short, or too large; says which.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
        if width * height > max_pixels:
            raise BadPicture(f"has {width} x {height} pixels, at most {max_pixels:,} are read")
        # A photograph may hold a second picture, for its depth or brightness; the first one counts.
        if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
            raise BadPicture("is an animation; send a single picture")
        picture.load()
        return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise BadPicture("is no PNG, JPEG or WebP") from None
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise BadPicture(f"cannot be decoded: {error}") from error
