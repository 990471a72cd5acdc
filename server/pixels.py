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
PNG, JPEG = b"\x89PNG", b"\xff\xd8"
"""Their first bytes."""
MOST_PARTS = 10_000
"""Chunks of a PNG, segments of a JPEG: each is a step of a slow loop, and may be a few bytes."""
MOST_SCANS = 50
"""Of a progressive JPEG, which has ten or so. Each goes over the whole picture, and may be as short
as a line of this text: a file of a megabyte would take a core for ten minutes."""
SCAN = b"\xff\xda"
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
        picture = _recognized(data)
        _expect_at_most(max_pixels, picture)
        # A photograph may hold a second picture, for its depth or brightness; the first one counts.
        if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
            raise BadPicture("is an animation; send a single picture")
        picture.load()
        if picture.mode == "P" and picture.palette is None:
            raise BadPicture("cannot be decoded: its palette is missing")
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
        picture = _recognized(data)
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


def _recognized(data: bytes) -> Image.Image:
    """By its head; nothing is decoded yet, and nothing needs long to be."""
    steps = _steps(data)
    if steps > MOST_PARTS:
        raise BadPicture(f"has more than the {MOST_PARTS:,} parts that are read; save it again")
    if data[:2] == JPEG and data.count(SCAN) > MOST_SCANS:
        raise BadPicture(f"has more than the {MOST_SCANS} scans that are read; save it again")
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _steps(data: bytes) -> int:
    """How many parts there are of a PNG, or of a JPEG before its picture; beyond `MOST_PARTS` they
    are not counted."""
    walk = {PNG: _chunk_after, JPEG: _segment_after}.get(data[:4] if data[:4] == PNG else data[:2])
    steps, place = 0, 8 if data[:4] == PNG else 2
    while walk is not None and place < len(data) and steps <= MOST_PARTS:
        steps, place = steps + 1, walk(data, place)
    return steps


def _chunk_after(data: bytes, place: int) -> int:
    if data[place + 4 : place + 8] == b"IEND":
        return len(data)
    return place + 12 + int.from_bytes(data[place : place + 4])


def _segment_after(data: bytes, place: int) -> int:
    if data[place : place + 2] == SCAN:
        return len(data)
    if data[place] != 0xFF or data[place + 1 : place + 2] == b"\xff":  # padding
        return place + 1
    return place + 2 + int.from_bytes(data[place + 2 : place + 4])


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
