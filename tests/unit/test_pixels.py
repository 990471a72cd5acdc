"""Pictures between bytes and arrays."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from server.pixels import (
    MOST_PARTS,
    MOST_SCANS,
    BadPicture,
    brightest,
    open_picture,
    size_of,
)
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


def test_scans_that_come_again_and_again_are_not_decoded() -> None:
    data = picture("JPEG", (512, 512), progressive=True)
    last = data.rindex(b"\xff\xda")
    whole = open_picture(data[:last] + data[last:-2] * 3 + data[-2:])
    assert whole.size == (512, 512)
    with pytest.raises(BadPicture, match="scans"):
        open_picture(data[:last] + data[last:-2] * MOST_SCANS + data[-2:])


@pytest.mark.parametrize("size", [(512, 512), (3, 2)])
def test_parts_that_are_next_to_nothing_are_not_walked_through(size: tuple[int, int]) -> None:
    png, jpeg = picture("PNG", size), picture("JPEG", size)
    text = struct.pack(">I", 3) + b"tEXta\0b" + struct.pack(">I", zlib.crc32(b"tEXta\0b"))
    comment = b"\xff\xfe\0\x03a"
    for few, many in (
        (png[:33] + text * 500 + png[33:], png[:33] + text * MOST_PARTS + png[33:]),
        (jpeg[:2] + comment * 500 + jpeg[2:], jpeg[:2] + comment * MOST_PARTS + jpeg[2:]),
        (jpeg[:2] + b"\xff" * 500 + jpeg[2:], jpeg[:2] + b"\xff" * MOST_PARTS + jpeg[2:]),
    ):
        assert open_picture(few).size == size
        assert size_of(many) is None
        with pytest.raises(BadPicture, match="parts"):
            open_picture(many)
    assert open_picture(png + bytes(10**6)).size == size, "what follows a picture is none of it"


def test_a_palette_that_is_missing_is_no_picture() -> None:
    out = io.BytesIO()
    Image.new("P", (8, 8)).save(out, "PNG")
    data = out.getvalue()
    start = data.index(b"PLTE") - 4
    end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
    with pytest.raises(BadPicture, match="palette"):
        open_picture(data[:start] + data[end:])
