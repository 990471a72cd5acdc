"""Pictures between bytes and arrays."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from server.pixels import BadPicture, brightest, open_picture
from server.workers.inputs import mask

SIDEWAYS = (0x0112, 3, 1, struct.pack(">HH", 6, 0))
"""EXIF's entry for a camera that was turned by a quarter."""


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A TIFF directory of (tag, type, count, value), without what its offsets point at."""
    rows = b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + rows + bytes(4)


def picture(form: str, size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, form, **options)
    return out.getvalue()


BROKEN = {
    "junk": b"Exif\0\0" + b"junk" * 8,
    "nothing": b"Exif\0\0",
    "a cut directory": exif(SIDEWAYS)[:18],
    "a value of another type": exif((0x0112, 2, 4, b"six\0")),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_exif_data_that_cannot_be_read_turns_nothing(form: str, case: str) -> None:
    assert open_picture(picture(form, exif=BROKEN[case])).size == (24, 16)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_what_else_is_broken_in_exif_data_does_not_hide_how_the_camera_was_held(form: str) -> None:
    text_for_a_number = (0x0100, 2, 4, b"abc\0")
    sent = picture(form, exif=exif(text_for_a_number, SIDEWAYS))
    assert open_picture(sent).size == (16, 24)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_pillow_would(orientation: int) -> None:
    sides = Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3))
    held, out = Image.Exif(), io.BytesIO()
    held[0x0112] = orientation
    sides.save(out, "PNG", exif=held)
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue())))
    assert np.array_equal(np.asarray(open_picture(out.getvalue())), np.asarray(theirs))


def test_too_many_pixels_are_refused_from_the_header_with_the_size_that_would_do() -> None:
    cut = picture("PNG")[:60]
    with pytest.raises(BadPicture, match="24 x 16 pixels, at most 96 are read, of this shape 12 x"):
        open_picture(cut, 96)
    with pytest.raises(BadPicture, match=r"1000 x 1 pixels, at most 96 are read$"):
        open_picture(picture("PNG", (1000, 1)), 96)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F"])
@pytest.mark.parametrize("shade", [0, 100, 200])
def test_the_gateway_and_the_worker_find_a_mask_equally_bright(mode: str, shade: int) -> None:
    scale = 257 if mode in ("I;16", "I", "F") else 1
    grey = Image.fromarray(np.full((4, 4), shade * scale, np.int32))
    drawn = grey.convert(mode) if scale > 1 else grey.convert("L").convert(mode)
    assert brightest(drawn) == mask(drawn).max()


def test_what_is_transparent_in_a_mask_is_black() -> None:
    assert brightest(Image.new("RGBA", (4, 4), (255, 255, 255, 0))) == 0
