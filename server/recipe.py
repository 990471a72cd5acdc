"""What recreates a picture: a manifest, with the whole spec of it, or an A1111 infotext, which
holds less. Reads both, from text and from pictures. Knows no cards, no HTTP and no queue."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from PIL import Image
from pydantic import Field, model_validator

from server.errors import InvalidSpec
from server.spec import (
    SPEC,
    UPLOADED,
    WITHOUT_KEYS,
    AnySpec,
    Frozen,
    ImageInfo,
    Quantization,
)

PARAMETERS = "parameters"
"""The text of a PNG that holds the infotext, as A1111 names it."""
MAX_INFOTEXT = 2**18
"""Characters. Longer ones take seconds to read, and nobody wrote them."""
MANIFEST = "darkroom"
"""The text of a PNG that holds the manifest."""

EXIF_IFD = 0x8769
USER_COMMENT = 0x9286
"""The EXIF tag in which A1111's readers look for the infotext of a JPEG or WebP."""
UNICODE = b"UNICODE\0"
"""How such a comment begins; what follows is UTF-16."""

NOT_TOLD: dict[str, Any] = {**WITHOUT_KEYS, "previews": True}
"""What no picture says of itself: where we store what was sent, and how it was watched."""

NEGATIVE = "Negative prompt:"
SETTING = re.compile(
    r"(?<![^,])[ \t]*+(?P<name>[\w][^,:]{0,99}):[ \t]*+"
    r'(?P<value>"(?:\\.|[^\\"])*"|\{[^{}]*\}|[^,]*)(?=,|$)'
)
"""One of the last line of an infotext. It begins where the line does or behind a comma."""

FEWEST_SETTINGS = 3
"""A last line with fewer is part of a prompt, as A1111 has it."""


THUMBNAIL_SIDE = 8
ROUNDING = 2
"""How far two thumbnails of the same picture may be apart, of 255: whoever shares its UNet calls
changes the last bits of its latents, and with them some pixel by one."""


class Looks(NamedTuple):
    """How a picture looks, to compare it with another; empty where that is not known."""

    pixels_sha256: str = ""
    """Of rows of red, green and blue, a byte each."""
    thumbnail: str = ""
    """The mean colours of 8 x 8 equal parts, likewise, in base64."""

    @classmethod
    def of(cls, image: ImageInfo) -> Looks:
        """Of a picture that was drawn."""
        return cls(image.pixels_sha256, image.thumbnail)

    def same(self, other: Looks) -> bool | None:
        """Whether every pixel is; None where that is not known of both."""
        known = self.pixels_sha256 and other.pixels_sha256
        return self.pixels_sha256 == other.pixels_sha256 if known else None

    def alike(self, other: Looks) -> bool | None:
        """Whether it is the same picture but for rounding; None where that is not known."""
        if self.same(other) or not (self.thumbnail and other.thumbnail):
            return self.same(other) or None
        mine, theirs = _colours(self.thumbnail), _colours(other.thumbnail)
        if len(mine) != len(theirs) or not mine:
            return None
        return all(abs(a - b) <= ROUNDING for a, b in zip(mine, theirs, strict=True))


UNKNOWN = Looks()


def looks_of(picture: Image.Image) -> Looks:
    """How it looks."""
    whole = picture.convert("RGB")
    small = whole.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX).tobytes()
    digest = hashlib.sha256(whole.tobytes()).hexdigest()
    return Looks(digest, base64.b64encode(small).decode())


def _colours(thumbnail: str) -> bytes:
    """Empty where it is none."""
    try:
        return base64.b64decode(thumbnail, validate=True)
    except (binascii.Error, ValueError):
        return b""


DIGEST = r"^([0-9a-f]{64})?$"


class Manifest(Frozen):
    """One picture, so that it can be drawn again and compared. Where we keep what was sent for it
    is left out; its sha256 says which files are needed."""

    darkroom: Literal[1] = Field(default=1, description="Version of this format.")
    version: str = Field(default="", description="Of the software that drew it.")
    spec: AnySpec = Field(description="Of this picture alone; of a grid, the whole sweep's.")
    sha256: str = Field(
        default="", pattern=DIGEST, description="Of the encoded file, where it is known."
    )
    pixels_sha256: str = Field(
        default="",
        pattern=DIGEST,
        description="Of its pixels as drawn: rows of red, green, blue, a byte each.",
    )
    thumbnail: str = Field(
        default="",
        max_length=4 * THUMBNAIL_SIDE**2,
        description="Mean colours of 8 x 8 equal parts, likewise, in base64.",
    )
    quantization: Quantization = Field(
        default=Quantization.NONE,
        description="Of the weights that drew it; of several checkpoints', the first that were.",
    )

    @model_validator(mode="before")
    @classmethod
    def _give_uploads_a_key(cls, told: Any) -> Any:
        """The spec has one; a manifest does not say it, and is not believed where it does."""
        if not isinstance(told, dict) or not isinstance(told.get("spec"), dict):
            return told
        sent = {
            name: value | {"key": ""}
            for name in UPLOADED
            if isinstance(value := told["spec"].get(name), dict)
        }
        return told | {"spec": told["spec"] | sent}

    @property
    def looks(self) -> Looks:
        """Of the picture."""
        return Looks(self.pixels_sha256, self.thumbnail)

    def told(self) -> dict[str, Any]:
        """As JSON has it; what is not known is left out."""
        document: dict[str, Any] = {"darkroom": self.darkroom, "version": self.version}
        document["spec"] = SPEC.dump_python(self.spec, mode="json", exclude=NOT_TOLD)
        known = {"sha256": self.sha256, **self.looks._asdict()}
        if self.quantization is not Quantization.NONE:
            known["quantization"] = self.quantization.value
        return document | {name: value for name, value in known.items() if value}

    def text(self) -> str:
        """The same for a PNG's text chunk."""
        return json.dumps(self.told(), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Infotext:
    """What an infotext says, unread: `settings` by A1111's names, in their order."""

    prompt: str
    negative_prompt: str
    settings: Mapping[str, str]


def parse_infotext(text: str) -> Infotext:
    """Any text is one: where there is no line of settings, all of it is prompt.

    Raises:
        InvalidSpec: it is longer than anybody wrote.
    """
    if len(text) > MAX_INFOTEXT:
        said = f"the infotext has {len(text):,} characters; at most {MAX_INFOTEXT:,} are read"
        raise InvalidSpec(said)
    lines = text.rstrip().replace("\r\n", "\n").split("\n")
    settings = _settings(lines[-1])
    if len(settings) >= FEWEST_SETTINGS or lines[-1].startswith("Steps: "):
        lines.pop()
    else:
        settings = {}
    starts = (number for number, line in enumerate(lines) if line.startswith(NEGATIVE))
    border = next(starts, len(lines))
    negative = "\n".join(lines[border:]).removeprefix(NEGATIVE).removeprefix(" ")
    return Infotext("\n".join(lines[:border]), negative, settings)


def quoted(value: str) -> str:
    """A value as A1111 writes it, so that it can be told from its neighbours."""
    plain = not set(value) & set(',:\n"{') and value == value.strip()
    return value if plain else json.dumps(value, ensure_ascii=False)


def _settings(line: str) -> dict[str, str]:
    found = SETTING.finditer(line)
    return {each["name"].strip(): _unquoted(each["value"].strip()) for each in found}


def _unquoted(value: str) -> str:
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        return value
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value


def texts_of(picture: Image.Image) -> dict[str, str]:
    """What a picture says of itself: `parameters` and `darkroom`, those of them that it has."""
    said = {name: picture.info.get(name) for name in (PARAMETERS, MANIFEST)}
    found = {name: str(text) for name, text in said.items() if isinstance(text, str)}
    if PARAMETERS not in found and (comment := _comment(picture)):
        found[PARAMETERS] = comment
    return found


def _comment(picture: Image.Image) -> str:
    """The infotext of a JPEG or WebP."""
    try:
        comment = picture.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    except Exception:  # It comes from cameras and editors, and is often broken.
        return ""
    if not isinstance(comment, bytes) or not comment.startswith(UNICODE):
        return ""
    return comment.removeprefix(UNICODE).decode("utf-16-be", errors="replace")
