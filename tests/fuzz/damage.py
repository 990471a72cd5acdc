"""Pictures that are too much, cut short, or broken. Made, not kept; the same ones at every call."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

from tests.fuzz.files import (
    MEBIBYTE,
    SIDE,
    Odd,
    chunk,
    file,
    flat,
    gradient,
    png,
    riff,
    segment,
    zeros,
)

HUGE = 65_500
"""Pixels a side, as large as a JPEG can be."""


def bombs() -> Iterator[Odd]:
    """Small files that want to become gigabytes."""
    hundred = zlib.compress(bytes(MEBIBYTE), 9)
    for side in (10_000, 16_384, 30_000):
        yield Odd(f"png of {side} pixels a side, all there", flat(side, side))
    texts = zeros(100 * MEBIBYTE)
    for kind, head in {
        b"zTXt": b"Comment\0\0",
        b"iTXt": b"Comment\0\x01\0en\0\0",
        b"iCCP": b"profile\0\0",
    }.items():
        name = kind.decode()
        yield Odd(f"{name} of 100 MB", flat(SIDE, SIDE, chunk(kind, head + texts)), None)
        some = [chunk(kind, head + hundred) for _ in range(90)]
        yield Odd(f"90 times {name} of 1 MB", flat(SIDE, SIDE, *some), None)
    yield Odd("tEXt of 8 MB", flat(SIDE, SIDE, chunk(b"tEXt", b"a\0" + b"x" * 8_000_000)), None)
    many = [chunk(b"tEXt", b"k%d\0v" % number) for number in range(100_000)]
    yield Odd("100,000 texts", flat(SIDE, SIDE, *many), None)
    rows = zeros(200 * MEBIBYTE)
    yield Odd("png with 200 MB of rows too many", png(SIDE, SIDE, rows), None)
    yield Odd("png with rows compressed twice", png(SIDE, SIDE, zlib.compress(zeros(MEBIBYTE))))
    empty = [chunk(b"IDAT", b"") for _ in range(100_000)]
    yield Odd("100,000 empty IDATs", png(SIDE, SIDE, zeros(SIDE * (1 + 3 * SIDE)), *empty), None)
    yield Odd("scans without end", scans(400), None)
    large = gradient(4000, 4000)
    yield Odd("jpeg of 16 megapixels", file(large, "JPEG", quality=20), None)
    yield Odd(
        "webp of 16 megapixels",
        file(Image.new("RGB", (4096, 4096)), "WEBP", lossless=True, quality=0),
        None,
    )
    yield Odd("lossless webp of 16,383 pixels a side", lossless_webp(16_383))


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = file(gradient(1024, 1024), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


def lossless_webp(side: int) -> bytes:
    """One that says that it is so large, and holds nothing."""
    bits = (side - 1) | (side - 1) << 14
    return riff((b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(64)))


def huge() -> Iterator[Odd]:
    """Heads that lie about their size."""
    rows = zlib.compress(bytes(1000))
    sides = (0, 1, HUGE, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
    for width in sides:
        for height in sides:
            if (width, height) != (1, 1):
                fine = None if width == 1 else False  # a line that is short may be drawn from
                yield Odd(f"png that says {width} x {height}", png(width, height, rows), fine)
    plain = file(gradient(), "JPEG")
    frame = plain.index(b"\xff\xc0") + 5
    for width, height in (
        (HUGE, HUGE),
        (65_535, 65_535),
        (0, 0),
        (0, SIDE),
        (SIDE, 0),
        (1, 65_535),
    ):
        said = struct.pack(">HH", height, width)
        yield Odd(
            f"jpeg that says {width} x {height}", plain[:frame] + said + plain[frame + 4 :], None
        )
    lossy = file(gradient(), "WEBP")
    place = lossy.index(b"\x9d\x01\x2a") + 3
    for side in (0, 1, 0x3FFF, 0xFFFF):
        said = struct.pack("<HH", side, side)
        yield Odd(
            f"webp that says {side} x {side}", lossy[:place] + said + lossy[place + 4 :], None
        )
    for side in (2**14, 2**24):
        canvas = struct.pack("<I", side - 1)[:3]
        yield Odd(f"webp of a canvas of {side}", riff((b"VP8X", bytes(4) + canvas + canvas)))


def cut() -> Iterator[Odd]:
    """Files that end before they should."""
    for form in ("PNG", "JPEG", "WEBP"):
        data = file(gradient(), form)
        for part in range(1, 20):
            yield Odd(f"{form}, {part} of 20 parts", data[: len(data) * part // 20])
        for size in (0, 1, 2, 3, 4, 8, 12, 20, 33):
            yield Odd(f"{form}, {size} bytes", data[:size])


def flipped() -> Iterator[Odd]:
    """Files with a few bits the other way round. Some are pictures still."""
    dice = random.Random(5)
    for form in ("PNG", "JPEG", "WEBP"):
        data = file(gradient(), form)
        for number in range(25):
            broken = bytearray(data)
            for _ in range(1 + number % 8):
                broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
            yield Odd(f"{form}, flipped, number {number}", bytes(broken), None)


def damaged_png() -> Iterator[Odd]:
    """Chunks that are wrong, missing, or twice."""
    rows = zeros(SIDE * (1 + 3 * SIDE))
    good = png(SIDE, SIDE, rows)
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    sign, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    for name, data in {
        "no IHDR": sign + chunk(b"IDAT", rows) + end,
        "no IDAT": sign + chunk(b"IHDR", head) + end,
        "IHDR twice": sign + chunk(b"IHDR", head) * 2 + chunk(b"IDAT", rows) + end,
        "IHDR of zero bytes": sign + chunk(b"IHDR", b"") + chunk(b"IDAT", rows) + end,
        "a wrong CRC of IHDR": sign + chunk(b"IHDR", head, 7) + chunk(b"IDAT", rows) + end,
        "a wrong CRC of IDAT": sign + chunk(b"IHDR", head) + chunk(b"IDAT", rows, 7) + end,
        "rows of zero bytes": png(SIDE, SIDE, b""),
        "rows that are not compressed": png(SIDE, SIDE, bytes(1000)),
        "rows cut short": png(SIDE, SIDE, rows[: len(rows) // 2]),
        "too few rows": png(SIDE, SIDE, zeros(1000)),
        "an unknown filter": png(SIDE, SIDE, zlib.compress((b"\x09" + bytes(3 * SIDE)) * SIDE)),
        "a depth of 3": png(SIDE, SIDE, rows, depth=3),
        "a colour of 5": png(SIDE, SIDE, rows, colour=5),
        "a palette that is missing": png(SIDE, SIDE, zeros(SIDE * (1 + SIDE)), colour=3),
        "a palette of 4 bytes": png(SIDE, SIDE, rows, chunk(b"PLTE", b"1234"), colour=3),
        "a palette of 3,000 colours": png(
            SIDE, SIDE, zeros(SIDE * (1 + SIDE)), chunk(b"PLTE", bytes(9000)), colour=3
        ),
        "a chunk longer than the file": good[:33] + struct.pack(">I", 2**31 - 1) + good[37:],
        "an unknown critical chunk": png(SIDE, SIDE, rows, chunk(b"EVIL", b"x")),
        "a chunk's name of zeros": png(SIDE, SIDE, rows, chunk(b"\0\0\0\0", b"x")),
        "transparency of a wrong length": png(SIDE, SIDE, rows, chunk(b"tRNS", b"x")),
        "gamma of zero": png(SIDE, SIDE, rows, chunk(b"gAMA", bytes(4))),
        "a short pHYs": png(SIDE, SIDE, rows, chunk(b"pHYs", b"x")),
        "an iCCP without a name": png(SIDE, SIDE, rows, chunk(b"iCCP", b"")),
        "an iCCP of an unknown method": png(SIDE, SIDE, rows, chunk(b"iCCP", b"a\0\x09zzz")),
        "a zTXt that is not compressed": png(SIDE, SIDE, rows, chunk(b"zTXt", b"a\0\0zzz")),
        "an iTXt that is no UTF-8": png(SIDE, SIDE, rows, chunk(b"iTXt", b"a\0\0\0en\0\0\xff\xfe")),
        "an eXIf of noise": png(SIDE, SIDE, rows, chunk(b"eXIf", random.Random(9).randbytes(99))),
        "the sign of another system": good.replace(b"\r\n", b"\n", 1),
        "a byte before it": b"\0" + good,
    }.items():
        yield Odd(f"a png with {name}", data, None)


def damaged_jpeg() -> Iterator[Odd]:
    """Segments that are wrong or missing."""
    good = file(gradient(), "JPEG")
    edits: dict[str, Callable[[], bytes]] = {
        "no quantization": lambda: without(good, 0xDB),
        "no Huffman tables": lambda: without(good, 0xC4),
        "no frame": lambda: without(good, 0xC0),
        "no scan": lambda: good[: good.index(b"\xff\xda")] + b"\xff\xd9",
        "two frames": lambda: segment(good, 0xC0, bytes.fromhex("080080008003012200021101031101")),
        "arithmetic coding": lambda: good.replace(b"\xff\xc0", b"\xff\xc9", 1),
        "a lossless frame": lambda: good.replace(b"\xff\xc0", b"\xff\xc3", 1),
        "255 components": lambda: good.replace(b"\x08\0\x80\0\x80\x03", b"\x08\0\x80\0\x80\xff", 1),
        "12 bits": lambda: good.replace(b"\x08\0\x80\0\x80", b"\x0c\0\x80\0\x80", 1),
        "no components": lambda: good.replace(b"\x08\0\x80\0\x80\x03", b"\x08\0\x80\0\x80\0", 1),
        "a segment of no length": lambda: segment(good, 0xE2, b"")[:4] + b"\0\0" + good[2:],
        "a thousand comments": lambda: good[:2] + b"\xff\xfe\0\x09comment" * 1000 + good[2:],
        "an Adobe segment that lies": lambda: segment(good, 0xEE, b"Adobe\0\x64\0\0\0\0\x02"),
        "an icc profile of part 2 of 1": lambda: segment(good, 0xE2, b"ICC_PROFILE\0\x02\x01abc"),
        "zeros for its scan": lambda: (
            good[: good.index(b"\xff\xda") + 14] + bytes(3000) + b"\xff\xd9"
        ),
        "fill bytes without end": lambda: good[:2] + b"\xff" * 100_000 + good[2:],
    }
    for name, edit in edits.items():
        yield Odd(f"a jpeg with {name}", edit(), None)


def without(data: bytes, marker: int) -> bytes:
    """A JPEG that lacks the segments of a marker."""
    while (start := data.find(bytes((0xFF, marker)))) >= 0:
        length = struct.unpack(">H", data[start + 2 : start + 4])[0]
        data = data[:start] + data[start + 2 + length :]
    return data


def damaged_webp() -> Iterator[Odd]:
    """Chunks that are wrong or missing."""
    good = file(gradient(), "WEBP")
    kept = good[12:]
    for name, data in {
        "a length that is too large": good[:4] + struct.pack("<I", 2**32 - 2) + good[8:],
        "a length of zero": good[:4] + bytes(4) + good[8:],
        "a chunk that is too long": good[:16] + struct.pack("<I", 2**31) + good[20:],
        "no chunk": riff(),
        "an unknown chunk": riff((b"EVIL", b"x")),
        "a head and no picture": riff((b"VP8X", bytes(10))),
        "two pictures": good + kept,
        "alpha of noise": riff(
            (b"VP8X", b"\x10\0\0\0" + b"\x7f\0\0" * 2),
            (b"ALPH", b"\x01" + bytes(99)),
            (b"VP8 ", kept[8:]),
        ),
        "exif of noise": riff(
            (b"VP8X", b"\x08\0\0\0" + b"\x7f\0\0" * 2), (b"VP8 ", kept[8:]), (b"EXIF", b"\xff" * 99)
        ),
        "a frame that is no key frame": good[:20] + bytes((good[20] | 1,)) + good[21:],
    }.items():
        yield Odd(f"a webp with {name}", data, None)
