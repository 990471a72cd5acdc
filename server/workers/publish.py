"""From pictures to files in the store: for the next stage, or as the images of a generation."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.infotext import texts, texts_of_grid
from server.recipe import EXIF_IFD, PARAMETERS, UNICODE, USER_COMMENT, Looks, looks_of
from server.spec import ImageInfo, OutputFormat, Quantization, first_quantized
from server.stages import Handover
from server.storage import ImageStore
from server.workers.grid import draw_grid
from server.workers.inputs import latents_file
from server.workers.png import encode_png
from server.workers.stage import Claim

Pixels = NDArray[np.uint8]
"""An image of shape (height, width, 3)."""

MAX_COMMENT_CHARACTERS = 30_000
"""EXIF must fit one JPEG segment of 64 kB, and its text takes two bytes a character or more."""


def hand_on(claim: Claim, made: Sequence[NDArray[Any]], store: ImageStore) -> tuple[str, ...]:
    """Store what the next stage takes, for each image; returns the keys.

    As with `publish`, a key holds the execution.

    Raises:
        Unavailable: the store refuses.
    """
    latents = claim.stage.gives is Handover.LATENTS
    suffix = "safetensors" if latents else "png"
    keys = []
    for index, each in enumerate(made):
        key = f"{claim.id}/stage-{claim.number}-{index}-{claim.execution}.{suffix}"
        store.put(key, latents_file(each) if latents else encode_png(each, {}))
        keys.append(key)
    return tuple(keys)


def publish(
    claim: Claim,
    images: Sequence[Pixels],
    store: ImageStore,
    version: str,
    flags: Sequence[bool | None] = (),
    quantization: Quantization = Quantization.NONE,
) -> tuple[ImageInfo, ...]:
    """Encode and store every image of a generation, and after them the grid of a sweep. `flags`:
    for each image, whether it was found unsafe; None where nothing checked it. `quantization`: of
    the weights that drew this stage.

    The key holds the execution: a worker that has lost its claim writes beside, never over, the
    images of the one that took over.

    Raises:
        Unavailable: the store refuses.
    """
    whole, flags = claim.whole, flags or (None,) * len(images)
    kept = first_quantized([*(each.quantization for each in claim.past.metrics), quantization])
    infos = [
        _publish_one(claim, index, pixels, store, version, kept).model_copy(update={"nsfw": nsfw})
        for index, (pixels, nsfw) in enumerate(zip(images, flags, strict=True))
    ]
    if whole.sweep is not None:
        grid = draw_grid(images, whole.sweep)
        looks = looks_of(Image.fromarray(grid))
        about = texts_of_grid(whole, version, looks, kept)
        info = _stored(claim, "grid", grid, store, about, looks, kept)
        nsfw = None if None in flags else any(flags)
        infos.append(info.model_copy(update={"grid": True, "nsfw": nsfw}))
    return tuple(infos)


def _publish_one(
    claim: Claim, index: int, pixels: Pixels, store: ImageStore, version: str, kept: Quantization
) -> ImageInfo:
    whole = claim.whole
    looks = looks_of(Image.fromarray(pixels))
    about = texts(whole, index, version, looks, kept)
    info = _stored(claim, str(index), pixels, store, about, looks, kept)
    varied = whole.sweep.combinations[index] if whole.sweep else {}
    return info.model_copy(update={"seed": whole.alone(index).seed, "varied": varied})


def _stored(
    claim: Claim,
    name: str,
    pixels: Pixels,
    store: ImageStore,
    about: Mapping[str, str],
    looks: Looks,
    kept: Quantization,
) -> ImageInfo:
    form = claim.whole.output_format
    data = encode(pixels, form, about)
    key = f"{claim.id}/{name}-{claim.execution}.{form.value}"
    store.put(key, data)
    height, width, _ = pixels.shape
    return ImageInfo(
        key=key,
        seed=claim.whole.seed,
        width=width,
        height=height,
        sha256=hashlib.sha256(data).hexdigest(),
        **looks._asdict(),
        quantization=kept,
    )


def encode(pixels: Pixels, form: OutputFormat, about: Mapping[str, str]) -> bytes:
    """Encode an image of shape (height, width, 3) with its texts."""
    if form is OutputFormat.PNG:
        return encode_png(pixels, about)
    exif = Image.Exif()
    comment = about[PARAMETERS].encode("utf-16-be")[: 2 * MAX_COMMENT_CHARACTERS]
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = UNICODE + comment
    out = io.BytesIO()
    quality = 95 if form is OutputFormat.JPEG else 90
    Image.fromarray(pixels).save(out, form.value, quality=quality, exif=exif)
    return out.getvalue()
