"""What the images of a claim start from: keys of the image store to arrays. Knows no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save

from server.errors import GenerationFailed, NotFound
from server.pixels import DEEP, BadPicture, Inputs, open_picture
from server.spec import AnySpec, Upload
from server.stages import Handover
from server.workers.stage import Claim

Read = Callable[[str], bytes]
"""The bytes under a key of the image store."""

LATENTS = "latents"
"""The name of the one tensor in a file of latents."""


def inputs_of(claim: Claim, read: Read) -> list[Inputs]:
    """What each image starts from, in order: what the caller sent, or the stage before handed on.

    Raises:
        GenerationFailed: something is not there any more, is not what was sent or cannot be
            decoded; says what.
        Unavailable: the store cannot be reached.
    """
    if not claim.handed:
        return [_sent(claim.spec, read)] * claim.spec.num_images
    take = _latents if claim.stage.takes is Handover.LATENTS else _picture
    return [
        take(key, f"what stage {claim.number - 1} made of image {index}", read)
        for index, key in enumerate(claim.handed)
    ]


def latents_file(latents: NDArray[np.float32]) -> bytes:
    """A file of latents, as `inputs_of` reads it."""
    return save({LATENTS: np.ascontiguousarray(latents, np.float32)})


def rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """Colours of (height, width, 3). What is transparent is white."""
    return np.asarray(_on(picture, "white").convert("RGB"))


def mask(picture: Image.Image) -> NDArray[np.uint8]:
    """Brightness of (height, width). What is transparent is black: it is kept."""
    return np.asarray(_on(picture, "black").convert("L"))


def depth(picture: Image.Image) -> NDArray[np.float32]:
    """Brightness of (height, width), in whatever range the file has it."""
    grey = picture if picture.mode in DEEP else _on(picture, "black").convert("L")
    return np.asarray(grey, np.float32)


def _sent(spec: AnySpec, read: Read) -> Inputs:
    def opened(field: str) -> Image.Image | None:
        upload: Upload | None = getattr(spec, field, None)
        what = f"the picture sent as {field}"
        return _opened(_received(upload, what, read), what) if upload else None

    image, painted, map = opened("image"), opened("mask_image"), opened("depth_map")
    return Inputs(
        image=rgb(image) if image else None,
        mask=mask(painted) if painted else None,
        depth=depth(map) if map else None,
    )


def _picture(key: str, what: str, read: Read) -> Inputs:
    return Inputs(image=rgb(_opened(_stored(key, what, read), what)))


def _latents(key: str, what: str, read: Read) -> Inputs:
    try:
        return Inputs(latents=load(_stored(key, what, read))[LATENTS])
    except (SafetensorError, KeyError) as error:
        raise GenerationFailed(f"{what} cannot be read: {error}") from error


def _opened(data: bytes, what: str) -> Image.Image:
    try:
        return open_picture(data)
    except BadPicture as error:
        raise GenerationFailed(f"{what} {error}") from error


def _received(upload: Upload, what: str, read: Read) -> bytes:
    data = _stored(upload.key, what, read)
    if hashlib.sha256(data).hexdigest() != upload.sha256:
        raise GenerationFailed(f"{what} is not as it was sent: the image store has other bytes")
    return data


def _stored(key: str, what: str, read: Read) -> bytes:
    try:
        return read(key)
    except NotFound as error:
        raise GenerationFailed(f"{what} is no longer in the image store") from error


def _on(picture: Image.Image, colour: str) -> Image.Image:
    """Eight bits a channel, and on this colour where it is transparent."""
    if picture.mode in DEEP:
        deep = np.asarray(picture, np.float32)
        return Image.fromarray((deep.clip(0, 65535) / 257).round().astype(np.uint8))
    if not picture.has_transparency_data:
        return picture
    whole = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, colour), whole)
