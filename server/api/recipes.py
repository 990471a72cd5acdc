"""What is to be drawn again, read from a body: a manifest, an infotext, or a picture that carries
one. Knows HTTP; knows no cards and no queue."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Request
from pydantic import BeforeValidator, Field, ValidationError

from server.api.body import declared_type, in_words, parsed, read_json
from server.api.forms import FORM, fingerprint, read_parts, seen, sorted_out, texts_of
from server.api.recreate import SENT_FOR
from server.api.schemas import Asked, WebhookRequest, said
from server.api.uploads import decoded
from server.errors import BadRequest, FieldError, InvalidRequest, InvalidSpec
from server.infotext import infotext
from server.pixels import BadPicture, open_picture
from server.recipe import (
    MANIFEST,
    PARAMETERS,
    UNKNOWN,
    Infotext,
    Looks,
    Manifest,
    looks_of,
    parse_infotext,
)
from server.recipe import texts_of as texts_of_picture
from server.spec import MAX_PREVIEWS, OutputFormat, Quantization, Task, Warn

TEXT = "text/plain"
PICTURES = tuple(form.media_type for form in OutputFormat)

PICTURE = "image"
"""The part that is the picture to draw again."""


class ReplayRequest(Asked):
    """A manifest as it is, or an infotext; what was sent for the picture when it was first drawn;
    and what of a generation is not part of its recipe."""

    darkroom: int | None = Field(None, description="Of a manifest: the version of its format.")
    version: str | None = Field(None, description="Of a manifest: of the software that drew it.")
    spec: dict[str, Any] | None = Field(
        None, description="Of a manifest: all that decides the picture."
    )
    sha256: str | None = Field(None, description="Of a manifest: of the picture's file.")
    pixels_sha256: str | None = Field(None, description="Of a manifest: of the picture's pixels.")
    thumbnail: str | None = Field(None, description="Of a manifest: the picture, very small.")
    quantization: Quantization | None = Field(
        None, description="Of a manifest: of the weights that drew the picture."
    )
    infotext: str | None = Field(
        None, description="Prompt, negative prompt and settings, as A1111 writes them."
    )
    input: str | None = Field(
        None, description="The picture that it started from, in base64 or as a data URI."
    )
    mask_image: str | None = Field(None, description="The mask that it was drawn with.")
    depth_map: str | None = Field(None, description="The depth that it was drawn with.")
    webhook: WebhookRequest | None = Field(None, description="As of a generation.")
    previews: int | None = Field(None, ge=0, le=MAX_PREVIEWS, description="As of a generation.")
    strict: Annotated[bool, BeforeValidator(said, json_schema_input_type=bool | None)] = Field(
        False, description="Refuse instead of warning, as of a generation."
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """What was read: one of `manifest` and `infotext`, and all that was said beside it."""

    asked: ReplayRequest
    body: bytes
    """What the same request has again when it is sent again."""
    manifest: Manifest | None
    infotext: Infotext | None
    sha256: str
    """Of the file that is to be drawn again; empty where it is not known."""
    looks: Looks
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What it was drawn from, by the fields of a generation."""
    warnings: tuple[Warn, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """A body in its parts."""

    asked: ReplayRequest
    body: bytes
    picture: bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By part."""


async def read_recipe(request: Request, max_bytes: int, decoders: asyncio.Semaphore) -> Recipe:
    """The recipe, in whichever way it was sent.

    Raises:
        UnsupportedMediaType, BadRequest, InvalidRequest, InvalidSpec: there is none; says why.
    """
    sent = await _read(request, max_bytes)
    async with decoders:
        return await asyncio.to_thread(_understood, sent)


async def _read(request: Request, max_bytes: int) -> Sent:
    kind = declared_type(request)
    if kind == FORM:
        parts = await read_parts(request, max_bytes)
        fields, files = sorted_out(parts, (PICTURE, *SENT_FOR), texts_of(ReplayRequest))
        asked = parsed(json.dumps(fields).encode(), ReplayRequest)
        return Sent(asked, seen(parts), files.pop(PICTURE, None), files)
    if kind not in (TEXT, *PICTURES):
        asked, body = await read_json(request, ReplayRequest, TEXT, *PICTURES, FORM)
        return Sent(asked, await fingerprint(body))
    body = b"".join([part async for part in request.stream()])
    fields = {"infotext": _text(body)} if kind == TEXT else {}
    asked = ReplayRequest.model_validate(fields)
    return Sent(asked, await fingerprint(body), None if fields else body)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not text in UTF-8: {error}") from None


def _understood(sent: Sent) -> Recipe:
    given = [name for name in ("spec", "infotext") if getattr(sent.asked, name) is not None]
    if sent.picture is not None:
        given.append(PICTURE)
    if len(given) != 1:
        why = f"not {' and '.join(given)}" if given else "there is none of them"
        raise InvalidRequest(f"send a manifest, an infotext or a picture that carries one; {why}")
    files = {**_decoded(sent.asked), **{SENT_FOR[name]: data for name, data in sent.files.items()}}
    if sent.picture is not None:
        return _of_picture(sent, sent.picture, files)
    if sent.asked.infotext is not None:
        said = _infotext(sent.asked.infotext, "infotext")
        return Recipe(sent.asked, sent.body, None, said, "", UNKNOWN, files)
    told = sent.asked.model_dump(include=set(Manifest.model_fields), exclude_none=True)
    found = _manifest(told)
    return Recipe(sent.asked, sent.body, found, None, found.sha256, found.looks, files)


def _decoded(asked: ReplayRequest) -> dict[str, bytes]:
    found, refused = {}, []
    for name, field_name in SENT_FOR.items():
        if (text := getattr(asked, name)) is not None:
            try:
                found[field_name] = decoded(text)
            except BadPicture as error:
                refused.append(FieldError(name, f"{name}: {error}"))
    if refused:
        raise InvalidSpec.of(refused)
    return found


def _of_picture(sent: Sent, data: bytes, files: Mapping[str, bytes]) -> Recipe:
    """What it carries. Only a PNG has its pixels as they were drawn."""
    try:
        with open_picture(data) as opened:
            texts = texts_of_picture(opened)
            looks = looks_of(opened) if opened.format == "PNG" else UNKNOWN
    except BadPicture as error:
        raise InvalidSpec(f"{PICTURE}: {error}", field=PICTURE) from None
    sha256 = hashlib.sha256(data).hexdigest()
    if MANIFEST in texts:
        found = _manifest(_object(texts[MANIFEST]))
        known = found.looks if found.pixels_sha256 else looks
        warnings = (*_changed(looks, known), *_edited(found, texts.get(PARAMETERS, "")))
        return Recipe(sent.asked, sent.body, found, None, sha256, known, files, warnings)
    if PARAMETERS not in texts:
        raise InvalidSpec(
            f"{PICTURE}: carries no recipe, neither Darkroom's nor A1111's", field=PICTURE
        )
    said = _infotext(texts[PARAMETERS], PICTURE)
    return Recipe(sent.asked, sent.body, None, said, sha256, looks, files)


def _changed(looks: Looks, known: Looks) -> tuple[Warn, ...]:
    if looks.same(known) is not False:
        return ()
    message = f"{PICTURE}: was changed after it was drawn; it is compared with what was drawn"
    return (Warn(code="picture_changed", message=message, field=PICTURE),)


def _edited(manifest: Manifest, text: str) -> Iterator[Warn]:
    """An infotext beside a manifest is not read, and whoever edited it should know."""
    if not text:
        return
    said, meant = parse_infotext(text), parse_infotext(infotext(manifest.spec, manifest.version))
    both = said.settings.keys() & meant.settings.keys()
    same = said.prompt == meant.prompt and said.negative_prompt == meant.negative_prompt
    if not same or any(said.settings[name] != meant.settings[name] for name in both):
        message = f"{PICTURE}: its infotext says something else than its manifest, which is drawn"
        yield Warn(code="infotext_ignored", message=message, field=PICTURE)


def _infotext(text: str, field: str) -> Infotext:
    said = parse_infotext(text)
    if not said.settings:
        why = "there is no line of settings, such as `Steps: 20, Sampler: Euler a, Seed: 7`"
        raise InvalidSpec(f"{field}: is no infotext: {why}", field=field)
    return said


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidSpec(f"{PICTURE}: its manifest is not JSON", field=PICTURE) from None


def _manifest(told: Any) -> Manifest:
    try:
        return Manifest.model_validate(told)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidRequest.of([in_words(_plainly(each)) for each in found[:20]]) from None


def _plainly(error: Mapping[str, Any]) -> dict[str, Any]:
    """Without the task, which pydantic names between the spec and its field."""
    spec, *rest = error["loc"] or ("",)
    named = spec == "spec" and bool(rest) and rest[0] in set(Task)
    return {**error, "loc": (spec, *rest[1:]) if named else error["loc"]}
