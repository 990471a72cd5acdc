"""Pictures that come with a request: decoded in full, then stored as they were sent. Knows no
tasks and no cards."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from server.api.inputs import WHITE
from server.api.schemas import GenerationRequest
from server.errors import FieldError, InvalidSpec, Unavailable
from server.pixels import BadPicture, brightest, open_picture, size_of
from server.spec import UPLOADED, Size, Upload
from server.storage import ImageStore

DATA_URI = re.compile(r"data:([^,;]{0,80})[^,]{0,200},", re.IGNORECASE)
KINDS = ("image/png", "image/jpeg", "image/jpg", "image/webp")
SUFFIXES = {b"\x89PNG": "png", b"RIFF": "webp"}
"""By the first bytes of a file; what is neither is a JPEG, the third format that can be opened."""
MASK = "mask_image"
DECODERS = 4
"""Pictures that a gateway decodes at once: each can take a few hundred megabytes for a moment."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it was sent, known to be one."""

    data: bytes
    sha256: str
    width: int
    height: int
    brightest: int
    """Of a mask, 0 to 255; of the others it is not measured."""

    @property
    def suffix(self) -> str:
        """Of its file name."""
        return SUFFIXES.get(self.data[:4], "jpg")

    def upload(self, id: str, field: str) -> Upload:
        """Where it is stored for the generation of this id."""
        return Upload(
            key=f"{id}/input-{field.removesuffix('_image')}.{self.suffix}",
            sha256=self.sha256,
            width=self.width,
            height=self.height,
        )


async def read_pictures(
    sent: Mapping[str, str | bytes], decoders: asyncio.Semaphore, max_pixels: int
) -> dict[str, Picture]:
    """Every picture of a request, by field. Off the event loop, and not too many at once.

    Raises:
        InvalidSpec: names each field that holds none.
    """
    if not sent:
        return {}
    async with decoders:
        return await asyncio.to_thread(_read, sent, max_pixels)


async def store(
    store: ImageStore, uploads: Mapping[str, Upload], pictures: Mapping[str, Picture]
) -> None:
    """Put them where the spec says they are.

    Raises:
        Unavailable: the store refuses; nothing is left behind.
    """
    try:
        for field, upload in uploads.items():
            await asyncio.to_thread(store.put, upload.key, pictures[field].data)
    except Unavailable:
        await discard(store, uploads)
        raise


async def discard(store: ImageStore, uploads: Mapping[str, Upload]) -> None:
    """Remove what no generation needs. A store that refuses logs it, and keeps some bytes too
    many."""
    with contextlib.suppress(Unavailable):
        await store.delete(*(upload.key for upload in uploads.values()))


def sent_pictures(asked: GenerationRequest, files: Mapping[str, bytes]) -> dict[str, str | bytes]:
    """Those of the fields, then those of the file parts."""
    named = ((field, getattr(asked, field)) for field in UPLOADED)
    return {field: text for field, text in named if text is not None} | dict(files)


def _read(sent: Mapping[str, str | bytes], max_pixels: int) -> dict[str, Picture]:
    found, refused = {}, []
    for field, content in sent.items():
        try:
            found[field] = read_picture(content, max_pixels, is_mask=field == MASK)
        except BadPicture as error:
            refused.append(FieldError(field, f"{field}: {error}"))
    if refused:
        raise InvalidSpec.of(refused)
    return found


def read_picture(content: str | bytes, max_pixels: int, *, is_mask: bool = False) -> Picture:
    """A picture from the bytes of a file, or from text that holds them.

    Raises:
        BadPicture: it is none; the message goes on from the name of its field.
    """
    data = content if isinstance(content, bytes) else decoded(content)
    with open_picture(data, max_pixels) as opened:
        most = brightest(opened) if is_mask else WHITE
        sha256 = hashlib.sha256(data).hexdigest()
        return Picture(data, sha256, opened.width, opened.height, most)


def glimpsed(content: str | bytes) -> Size | None:
    """The size of a picture without decoding it; None where it is none."""
    try:
        return size_of(content if isinstance(content, bytes) else decoded(content))
    except BadPicture:
        return None


def decoded(text: str) -> bytes:
    """The bytes of a file in base64, alone or as a data URI.

    Raises:
        BadPicture: it is neither.
    """
    start = 0
    if text[:5].lower() == "data:":
        start = _data_uri(text)
    try:
        # Some tools break lines.
        return base64.b64decode("".join(text[start:].split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadPicture(_not_base64(text)) from None


def _data_uri(text: str) -> int:
    """Where the base64 of a data URI begins."""
    head = DATA_URI.match(text)
    kind = head[1].lower() if head else ""
    if head is None or kind not in KINDS:
        raise BadPicture(
            f"is a data URI of {kind or 'no type'}; send image/png, image/jpeg or image/webp"
        )
    if not head[0].lower().endswith(";base64,"):
        raise BadPicture("is a data URI that is not in base64")
    return head.end()


def _not_base64(text: str) -> str:
    if re.match(r"[a-z]{2,10}://", text, re.IGNORECASE):
        return "is an address, and addresses are not fetched; send the picture itself, in base64"
    return "is not base64"
