"""Reading a generation's body, JSON or multipart/form-data. Knows HTTP; knows no cards."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastapi import Request
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from server.api.body import LARGE, STRICT_JSON, declared_type, expect_few_values, parsed, read_json
from server.api.schemas import GenerationRequest
from server.errors import BadRequest, InvalidRequest
from server.spec import UPLOADED

FORM = "multipart/form-data"
BODY = "request"
"""The part that holds the fields as one JSON object."""
MAX_PARTS = 100

MAY_BE_EMPTY = frozenset({"prompt", "negative_prompt", "prompt_2", "negative_prompt_2"})


def texts_of(model: type[BaseModel]) -> frozenset[str]:
    """Fields that are read as they are: a prompt may look like a number."""
    fields = model.model_fields.items()
    return frozenset(name for name, info in fields if info.annotation in (str, str | None))


TEXTS = texts_of(GenerationRequest)


@dataclass(frozen=True, slots=True)
class Sent:
    """A body that was read."""

    asked: GenerationRequest
    body: bytes
    """What the same request has again when it is sent again."""
    files: Mapping[str, bytes] = field(default_factory=dict)


async def read_sent(request: Request, max_bytes: int) -> Sent:
    """The request, and the files that came with it.

    Raises:
        UnsupportedMediaType, BadRequest, InvalidRequest: see `read_json`.
    """
    if declared_type(request) != FORM:
        asked, body = await read_json(request, GenerationRequest, FORM)
        return Sent(asked, await fingerprint(body))
    return await asyncio.to_thread(_read, await read_parts(request, max_bytes))


async def fingerprint(body: bytes) -> bytes:
    """What the same body has again; hashed where that is shorter."""
    return body if len(body) < LARGE else await asyncio.to_thread(_digest, body)


class FormParser(MultiPartParser):
    """Starlette's takes a form that was cut short for a whole one, and reads text as Latin-1 where
    it is not what it is declared to be."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        super().__init__(
            request.headers,
            request.stream(),
            max_files=MAX_PARTS,
            max_fields=MAX_PARTS,
            max_part_size=max_bytes,
        )
        self._whole = False

    def on_end(self) -> None:
        """The closing boundary was read."""
        self._whole = True

    def on_part_end(self) -> None:
        """A part was read."""
        part = self._current_part
        if part.file is None:
            try:
                part.data.decode(self._charset)
            except (UnicodeDecodeError, LookupError):
                name = part.field_name[:80]
                message = f"{name}: is not text in {self._charset.upper()}"
                raise InvalidRequest(message, field=name) from None
        super().on_part_end()

    async def parse(self) -> FormData:
        """The form. What is refused leaves no file open.

        Raises:
            MultiPartException: it is none, or it is cut short.
        """
        form = await super().parse()
        if not self._whole:
            await form.close()
            raise MultiPartException("it ends before its closing boundary")
        return form


async def _form(request: Request, max_bytes: int) -> FormData:
    try:
        return await FormParser(request, max_bytes).parse()
    except MultiPartException as error:
        raise BadRequest(f"the body is not multipart/form-data: {error.message}") from None


class Part(NamedTuple):
    """One part of a form."""

    name: str
    content: bytes
    is_file: bool


async def read_parts(request: Request, max_bytes: int) -> list[Part]:
    """The parts of a form, in order.

    Raises:
        BadRequest: the body is none.
        InvalidRequest: a part is no text in the charset it declares.
    """
    form = await _form(request, max_bytes)
    try:
        return [await _part(name, value) for name, value in form.multi_items()]
    finally:
        await form.close()


async def _part(name: str, value: str | UploadFile) -> Part:
    if isinstance(value, UploadFile):
        return Part(name, await value.read(), True)
    return Part(name, value.encode(errors="replace"), False)


def _read(parts: Sequence[Part]) -> Sent:
    fields, files = sorted_out(parts, UPLOADED, TEXTS)
    # Written again because only JSON is read without guessing at types.
    return Sent(parsed(json.dumps(fields).encode(), GenerationRequest), seen(parts), files)


def sorted_out(
    parts: Sequence[Part], file_names: Collection[str], texts: Collection[str]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The fields of a form, and its files. `texts` are read as they are.

    Raises:
        BadRequest, InvalidRequest: as `read_sent`.
    """
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for name, content, is_file in parts:
        if name == BODY:
            _add(fields, _object(content))
        elif is_file:
            _add_file(files, name, content, file_names)
        else:
            _add(fields, field_of(name, content.decode(), texts))
    for name in files:
        _once(fields, name)
    return fields, files


def seen(parts: Sequence[Part]) -> bytes:
    """What the same form has again when it is sent again; its boundary differs."""
    return b"".join(_digest(part.name.encode()) + _digest(part.content) for part in parts)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _add_file(
    files: dict[str, bytes], name: str, content: bytes, file_names: Collection[str]
) -> None:
    if not content:  # what a browser sends for a file that was not chosen
        return
    if name not in file_names:
        known = ", ".join(file_names)
        raise InvalidRequest(f"{name[:80]}: cannot be a file; these can: {known}", field=name[:80])
    _once(files, name)
    files[name] = content


def _object(content: bytes) -> dict[str, Any]:
    expect_few_values(content)
    try:
        from_json(content, allow_inf_nan=False)  # refuses what is nested too deep
        found = STRICT_JSON.decode(content.decode())
    except ValueError as error:
        raise BadRequest(f"the part {BODY!r} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{BODY}: must be a JSON object", field=BODY)
    return found


def field_of(name: str, text: str, texts: Collection[str]) -> dict[str, Any]:
    """A field of a form: JSON if it can be read as such, else the text itself."""
    if not text and name not in MAY_BE_EMPTY:  # what a browser sends where nothing was filled in
        return {}
    if name in texts:
        return {name: text}
    try:
        from_json(text, allow_inf_nan=False)
        return {name: STRICT_JSON.decode(text)}
    except ValueError:
        return {name: text}


def _add(fields: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name in more:
        _once(fields, name)
    fields.update(more)


def _once(fields: Mapping[str, Any], name: str) -> None:
    if name in fields:
        raise InvalidRequest(f"{name[:80]}: is given more than once", field=name[:80])
