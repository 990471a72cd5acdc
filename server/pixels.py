"""Pictures between bytes and arrays, and what is refused of them. Knows no model, HTTP or store."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from server.spec import MAX_INPUT_PIXELS, Size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "WEBP")
DEEP = ("I;16", "I;16L", "I;16B", "I", "F")
"""Pillow's modes with more than 8 bits a pixel, as read from 16-bit PNGs."""

ORIENTATION = 0x0112
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""By what EXIF says of how a camera was held."""
SIDEWAYS = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)


class BadPicture(Exception):
    """Not a picture that can be used; the message goes on from the name of its field."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a ticket starts from, decoded. Absent ones are None."""

    image: NDArray[np.uint8] | None = None  # (h, w, 3)
    mask: NDArray[np.uint8] | None = None  # (h, w), 255 is drawn again, 0 is kept
    depth: NDArray[np.float32] | None = None  # (h, w), larger is nearer
    latents: NDArray[np.float32] | None = None  # (channels, h, w), as the autoencoder's, scaled


def open_picture(data: bytes, max_pixels: int = MAX_INPUT_PIXELS) -> Image.Image:
    """A PNG, JPEG or WebP, decoded in full and upright; animations are refused.

    Raises:
        BadPicture: it is none of them, cut short, or too large; says which.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        _expect_at_most(max_pixels, picture)
        # A photograph may hold a second picture, for its depth or brightness; the first one counts.
        if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
            raise BadPicture("is an animation; send a single picture")
        picture.load()
        return _upright(picture)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture("is no PNG, JPEG or WebP") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"has far more than the {max_pixels:,} pixels that are read") from None
    except Exception as error:  # Pillow raises whatever hostile bytes lead its decoders to.
        raise BadPicture(f"cannot be decoded: {error}") from error


def size_of(data: bytes) -> Size | None:
    """Width and height of a picture, upright, from the head of its file; None where it has none
    that could be read."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        turned = TURNS.get(picture.getexif().get(ORIENTATION, 1)) in SIDEWAYS
    except Exception:  # As above; what is wrong with it is said when it is opened.
        return None
    width, height = picture.size
    return (height, width) if turned else (width, height)


def brightest(mask: Image.Image) -> int:
    """Of the pixels of a mask as it is read, 0 to 255. What is transparent is black."""
    if mask.mode in DEEP:
        most = mask.getextrema()[1]
        assert isinstance(most, int | float)
        return round(min(max(most, 0), 65535) / 257)
    if mask.has_transparency_data:
        whole = mask.convert("RGBA")
        mask = Image.alpha_composite(Image.new("RGBA", whole.size, "black"), whole)
    found = mask.convert("L").getextrema()[1]
    assert isinstance(found, int)
    return found


def _expect_at_most(max_pixels: int, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
        right = int(width * scale), int(height * scale)
        hint = f", of this shape {right[0]} x {right[1]}" if all(right) else ""
        raise BadPicture(f"has {width} x {height} pixels, at most {max_pixels:,} are read{hint}")


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF data says. Data that cannot be read says nothing."""
    try:
        turn = TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # It comes from cameras and editors, and is often broken.
        return picture
    return picture if turn is None else picture.transpose(turn)
