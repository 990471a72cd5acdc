"""What pictures are made of: chunks, segments, and bytes that unpack to gigabytes."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from PIL import Image

SIDE = 128
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Odd:
    """A file. `fine`: it is a picture after all, and is drawn from."""

    name: str
    data: bytes
    fine: bool | None = False
    """None: whatever becomes of it, as long as it is said in words; a bit more or less decides."""


def gradient(width: int = SIDE, height: int = SIDE, mode: str = "RGB") -> Image.Image:
    """A picture that does not compress to nothing."""
    picture = Image.linear_gradient("L").resize((width, height)).rotate(30)
    return Image.merge("RGB", (picture, picture.rotate(90), picture.rotate(180))).convert(mode)


def file(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """It, encoded."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """Of a PNG."""
    checked = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checked)


def png(
    width: int, height: int, rows: bytes, *before: bytes, depth: int = 8, colour: int = 2
) -> bytes:
    """A PNG with these bytes for its compressed rows and these chunks before them."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *before, chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(size: int) -> bytes:
    """So many of them, compressed. Gigabytes of them are as quick as one piece."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    piece = packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(size % MEBIBYTE)) + packer.flush()
    checked = (size % 65_521) << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + piece * (size // MEBIBYTE) + rest + struct.pack(">I", checked)


def flat(width: int, height: int, *before: bytes) -> bytes:
    """A black PNG with nothing wrong about its rows."""
    return png(width, height, zeros(height * (1 + 3 * width)), *before)


def segment(data: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG with another segment after its first two bytes."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
