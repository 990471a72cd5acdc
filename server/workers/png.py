"""PNG, written fast: one fixed filter in numpy and ISA-L's deflate.

Pillow tries five filters a row and deflates for size; measured on a 512x512 picture it takes some
25 times as long for a file a fifth smaller. Format: RFC 2083 (PNG 1.2), filter type 1 ("Sub").
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SUB = 1
RGB = 2


def encode_png(pixels: NDArray[np.uint8], texts: Mapping[str, str]) -> bytes:
    """Encode an image of shape (height, width, 3), with `texts` as text chunks before the data."""
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, RGB, 0, 0, 0)
    data = isal_zlib.compress(_filtered(pixels), level=1)
    return b"".join(
        (
            SIGNATURE,
            _chunk(b"IHDR", header),
            *(_text(keyword, text) for keyword, text in texts.items()),
            *_parts(b"IDAT", data),
            _chunk(b"IEND", b""),
        )
    )


def _filtered(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each byte less the byte of the pixel to its left, each row led by its filter type."""
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 0] = SUB
    line = pixels.reshape(height, 3 * width)
    rows[:, 1:4] = line[:, :3]
    np.subtract(line[:, 3:], line[:, :-3], out=rows[:, 4:])
    return rows


def _text(keyword: str, text: str) -> bytes:
    """`tEXt` where Latin-1 will do, since every reader knows it, else UTF-8 in `iTXt`."""
    name = keyword.encode("latin-1")
    try:
        return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join(_parts(kind, data))


def _parts(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    """To be joined. The data may be large, and is not copied."""
    check = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", check)
