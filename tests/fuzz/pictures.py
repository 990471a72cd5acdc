"""Pictures that somebody who means harm would send, and odd ones that are fine: made, not kept.

`hostile()` gives each with its name and what is to become of it. The same ones at every call.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator

from PIL import Image, ImageCms

from tests.fuzz.damage import bombs, cut, damaged_jpeg, damaged_png, damaged_webp, flipped, huge
from tests.fuzz.files import (
    MEBIBYTE,
    SIDE,
    Odd,
    chunk,
    file,
    flat,
    gradient,
    riff,
    segment,
)


def hostile() -> Iterator[Odd]:
    """All of them."""
    for family in (
        whole,
        turned,
        bombs,
        huge,
        cut,
        flipped,
        polyglots,
        strangers,
        animated,
        damaged_png,
        damaged_jpeg,
        damaged_webp,
    ):
        yield from family()


def whole() -> Iterator[Odd]:
    """Rare, but pictures: each is drawn from."""
    opaque, clear = gradient(), gradient(mode="RGBA")
    clear.putalpha(gradient(mode="L"))
    palette = clear.quantize(16)
    deep = Image.frombytes("I;16", (SIDE, SIDE), bytes(range(256)) * (SIDE * SIDE * 2 // 256))
    for name, data in {
        "plain png": file(opaque),
        "plain jpeg": file(opaque, "JPEG"),
        "plain webp": file(opaque, "WEBP"),
        "lossless webp": file(opaque, "WEBP", lossless=True),
        "webp with alpha": file(clear, "WEBP"),
        "cmyk jpeg": file(opaque.convert("CMYK"), "JPEG"),
        "grey jpeg": file(opaque.convert("L"), "JPEG"),
        "progressive jpeg": file(opaque, "JPEG", progressive=True),
        "jpeg of quality 1": file(opaque, "JPEG", quality=1),
        "jpeg of quality 100, 4:4:4": file(opaque, "JPEG", quality=100, subsampling=0),
        "jpeg with restarts": file(opaque, "JPEG", restart_marker_blocks=1),
        "16-bit png": file(deep),
        "palette png": file(opaque.quantize(7)),
        "palette png with alpha": file(palette),
        "palette png with one clear colour": file(opaque.quantize(8), transparency=3),
        "one-bit png": file(opaque.convert("1")),
        "grey png with alpha": file(clear.convert("LA")),
        "rgb png with a clear colour": file(opaque, transparency=(0, 0, 0)),
        "alpha-only png": file(
            Image.merge("LA", (Image.new("L", clear.size), clear.getchannel(3)))
        ),
        "interlaced png": png_interlaced(),
        "png without compression": file(opaque, compress_level=0),
        "png with a small iCCP": file(opaque, icc_profile=profile()),
        "jpeg with an icc profile": file(opaque, "JPEG", icc_profile=profile()),
    }.items():
        yield Odd(name, data, fine=True)
    yield Odd("jpeg with a broken icc profile", file(opaque, "JPEG", icc_profile=b"\0" * 99), True)
    yield Odd("png with a broken icc profile", file(opaque, icc_profile=b"no profile"), True)
    yield Odd("webp with a broken icc profile", file(opaque, "WEBP", icc_profile=b"?" * 40), True)
    for side in (1, 2, 3):
        for form in ("PNG", "JPEG", "WEBP"):
            yield Odd(f"{side} x {side} {form}", file(gradient(side, side), form), None)
    yield Odd("8 x 2,048", file(gradient(8, 2048), "JPEG"), None)
    yield Odd("4,000 x 1", file(gradient(4000, 1)), None)
    yield Odd("1 x 4,000", file(gradient(1, 4000)), None)


def profile() -> bytes:
    """A good one."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png_interlaced() -> bytes:
    """Pillow writes none, so this one is black: seven passes of zeros."""
    passes = ((16, 16), (16, 16), (32, 16), (32, 32), (64, 32), (64, 64), (128, 64))
    rows = b"".join(bytes((1 + 3 * width) * height) for width, height in passes)
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 1)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def turned() -> Iterator[Odd]:
    """EXIF data of every orientation, and data that is none."""
    for turn in range(10):
        exif = Image.Exif()
        exif[0x0112] = turn
        for form in ("JPEG", "PNG", "WEBP"):
            yield Odd(f"{form} held as {turn}", file(gradient(), form, exif=exif.tobytes()), True)
    plain = file(gradient(), "JPEG")
    head = b"Exif\0\0"
    for name, content in {
        "exif cut short": head + b"MM\0*\0\0",
        "exif that is empty": head,
        "exif that points to itself": head
        + b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08",
        "exif of 65,535 entries": head + b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03" * 20,
        "exif of noise": head + random.Random(3).randbytes(2000),
        "exif that points far away": head + b"II*\0\xff\xff\xff\x7f",
        "exif whose orientation is text": head
        + b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04six\0\0\0\0\0",
    }.items():
        yield Odd(name, segment(plain, 0xE1, content), True)
    many = plain
    for _ in range(300):
        many = segment(many, 0xE1, head + b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
    yield Odd("300 exif segments", many, True)


def polyglots() -> Iterator[Odd]:
    """Pictures that are something else, too: drawn from, and kept as what they are sent as."""
    plain = file(gradient())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../../evil.txt", "evil")
    extras = {
        "a gif": file(gradient(), "GIF"),
        "a zip": archive.getvalue(),
        "html": b"<html><script>alert(1)</script></html>",
        "php": b"<?php system($_GET['c']); ?>",
        "a pdf": b"%PDF-1.4\n%%EOF",
        "another png": plain,
        "a jpeg": file(gradient(), "JPEG"),
        "a megabyte of zeros": bytes(MEBIBYTE),
    }
    for name, extra in extras.items():
        yield Odd(f"png and {name}", plain + extra, True)
        yield Odd(f"jpeg and {name}", file(gradient(), "JPEG") + extra, True)
        yield Odd(f"{name} and png", extra + plain, True if extra == plain else None)
    script = b"<script>alert(document.domain)</script>"
    yield Odd(
        "png with html for a text", flat(SIDE, SIDE, chunk(b"tEXt", b"Comment\0" + script)), True
    )
    yield Odd("jpeg with html for a comment", segment(file(gradient(), "JPEG"), 0xFE, script), True)


def strangers() -> Iterator[Odd]:
    """What is no PNG, JPEG or WebP, whatever it is called."""
    picture = gradient()
    for form in (
        "GIF",
        "BMP",
        "TIFF",
        "ICO",
        "PPM",
        "TGA",
        "PCX",
        "JPEG2000",
        "AVIF",
        "DDS",
        "SGI",
    ):
        try:
            yield Odd(f"a {form}", file(picture, form))
        except (KeyError, OSError):  # Pillow was built without it
            continue
    for name, data in {
        "an svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "an svg of entities": b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
        "an svg that reads a file": b'<svg><image href="file:///etc/passwd"/></svg>',
        "a pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
        "a psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(400),
        "an eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
        "an mvg": b"push graphic-context\nviewbox 0 0 9 9\nfill 'url(https://127.0.0.1/)'\n",
        "an xbm": b"#define a_width 8\n#define a_height 8\nstatic char a_bits[] = {0};",
        "gzip": gzip.compress(file(picture)),
        "a wmf": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "an icns": b"icns\0\0\0\x10icp4\0\0\0\x08",
        "a pickle": b"cos\nsystem\n(S'true'\ntR.",
        "a heif": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "an mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        "a fits": b"SIMPLE  =                    T".ljust(2880),
        "a riff that is a wav": b"RIFF" + struct.pack("<I", 40) + b"WAVEfmt " + bytes(32),
        "text": b"hello there",
        "zeros": bytes(10_000),
        "noise": random.Random(7).randbytes(10_000),
        "only the first bytes of a png": b"\x89PNG\r\n\x1a\n",
        "only the first bytes of a jpeg": b"\xff\xd8\xff",
        "an mng": b"\x8aMNG\r\n\x1a\n" + bytes(40),
    }.items():
        yield Odd(name, data)


def animated() -> Iterator[Odd]:
    """More than one picture."""
    frames = [gradient().rotate(10 * number) for number in range(4)]
    for form in ("PNG", "WEBP", "GIF", "TIFF"):
        yield Odd(
            f"an animated {form}", file(frames[0], form, save_all=True, append_images=frames[1:])
        )
    control = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield Odd("a png that says it has two billion frames", flat(SIDE, SIDE, control), None)
    one = chunk(b"acTL", struct.pack(">II", 1, 0))
    yield Odd("a png that says it is an animation of one", flat(SIDE, SIDE, one), None)
    none = chunk(b"acTL", struct.pack(">II", 0, 0))
    yield Odd("a png that says it is an animation of none", flat(SIDE, SIDE, none), None)
    frames_of_nothing = [(b"ANMF", bytes(24)) for _ in range(10_000)]
    head = (b"VP8X", b"\x02\0\0\0" + b"\x7f\0\0" * 2)
    yield Odd("a webp of 10,000 empty frames", riff(head, (b"ANIM", bytes(6)), *frames_of_nothing))
    yield Odd(
        "two pictures in a photograph",
        file(frames[0], "MPO", save_all=True, append_images=frames[1:2]),
        True,
    )
