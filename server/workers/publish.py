"""From pictures on the device to images in the store, on threads of its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.infotext import texts
from server.spec import ImageInfo, OutputFormat
from server.storage import ImageStore
from server.workers.png import encode_png
from server.workers.stage import Claim

Pixels = NDArray[np.uint8]
"""An image of shape (height, width, 3)."""

EXIF_IFD = 0x8769
USER_COMMENT = 0x9286
"""The EXIF tag in which A1111's readers look for the infotext of a JPEG or WebP."""

MAX_COMMENT_CHARACTERS = 30_000
"""EXIF must fit one JPEG segment of 64 kB, and its text takes two bytes a character or more."""


def publish(
    claim: Claim, images: Sequence[Pixels], store: ImageStore, version: str
) -> tuple[ImageInfo, ...]:
    """Encode and store every image of a claim.

    The key holds the execution: a worker that has lost its claim writes beside, never over, the
    images of the one that took over.

    Raises:
        Unavailable: the store refuses.
    """
    return tuple(
        _publish_one(claim, index, pixels, store, version) for index, pixels in enumerate(images)
    )


def _publish_one(
    claim: Claim, index: int, pixels: Pixels, store: ImageStore, version: str
) -> ImageInfo:
    spec = claim.spec
    data = encode(pixels, spec.output_format, texts(spec, index, version))
    key = f"{claim.id}/{index}-{claim.execution}.{spec.output_format.value}"
    store.put(key, data)
    height, width, _ = pixels.shape
    return ImageInfo(
        key=key,
        seed=spec.seed + index,
        width=width,
        height=height,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def encode(pixels: Pixels, form: OutputFormat, about: Mapping[str, str]) -> bytes:
    """Encode an image of shape (height, width, 3) with its texts."""
    if form is OutputFormat.PNG:
        return encode_png(pixels, about)
    exif = Image.Exif()
    comment = about["parameters"].encode("utf-16-be")[: 2 * MAX_COMMENT_CHARACTERS]
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + comment
    out = io.BytesIO()
    quality = 95 if form is OutputFormat.JPEG else 90
    Image.fromarray(pixels).save(out, form.value, quality=quality, exif=exif)
    return out.getvalue()
