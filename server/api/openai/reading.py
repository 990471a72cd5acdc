"""Reading a body of this door, JSON or a form as the SDKs write it. Knows HTTP; knows no cards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from server.api.body import LARGE, declared_type, parsed, read_json
from server.api.forms import FORM, Part, field_of, read_parts, seen, texts_of
from server.api.openai.requests import MAX_IMAGES, EditRequest, ImagesRequest
from server.errors import InvalidRequest

NESTED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])+)")
"""`hires[scale]`, `original_size[]`, `loras[][name]`: how the SDKs write what is not flat."""
KEYS = re.compile(r"\[([^\[\]]*)\]")

FILES = ("mask", "mask_image", "depth_map")
"""Parts that are files, beside the images."""


@dataclass(frozen=True, slots=True)
class Read:
    """A body that was read. Pictures are bytes where they came as files, else text."""

    asked: ImagesRequest
    body: bytes
    """What the same request has again when it is sent again."""
    images: Sequence[str | bytes]
    mask: str | bytes | None
    """As OpenAI means it."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Those of a generation."""


async def read_body(request: Request, model: type[ImagesRequest], max_bytes: int) -> Read:
    """The request, and the pictures that came with it.

    Raises:
        UnsupportedMediaType, BadRequest, InvalidRequest: see `read_json` and `read_parts`.
    """
    if declared_type(request) != FORM:
        asked, body = await read_json(request, model, FORM)
        if len(body) > LARGE:
            body = (await asyncio.to_thread(hashlib.sha256, body)).digest()
        return _joined(asked, body, [], {})
    return await asyncio.to_thread(_of_form, await read_parts(request, max_bytes), model)


def _joined(
    asked: ImagesRequest, body: bytes, images: Sequence[bytes], files: Mapping[str, bytes]
) -> Read:
    """Pictures of the fields and of the files."""
    others = dict(files)
    all_images: list[str | bytes] = list(images)
    mask: str | bytes | None = others.pop("mask", None)
    if isinstance(asked, EditRequest):
        all_images += [reference.picture for reference in asked.images or ()]
        if asked.mask is not None:
            mask = asked.mask.picture
    if len(all_images) > MAX_IMAGES:
        raise _refused("image", f"has {len(all_images)} pictures, at most {MAX_IMAGES} are read")
    return Read(asked, body, all_images, mask, others)


def _of_form(parts: Sequence[Part], model: type[ImagesRequest]) -> Read:
    images: list[bytes] = []
    files: dict[str, bytes] = {}
    texts: dict[str, list[str]] = {}
    for name, content, is_file in parts:
        if not is_file:
            texts.setdefault(name, []).append(content.decode())
        elif not content:  # what a browser sends for a file that was not chosen
            continue
        elif name.partition("[")[0] == "image":
            images.append(content)
        elif name in FILES and name not in files:
            files[name] = content
        else:
            raise _refused(name, "is given more than once" if name in files else "is no file here")
    fields = _fields(texts, model)
    for name in fields.keys() & files.keys():
        raise _refused(name, "is given more than once")
    # Written again because only JSON is read without guessing at types.
    return _joined(parsed(json.dumps(fields).encode(), model), seen(parts), images, files)


def _fields(texts: Mapping[str, Sequence[str]], model: type[ImagesRequest]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    plain = texts_of(model)
    for name, values in texts.items():
        if found := NESTED.fullmatch(name):
            _nest(nested, found[1], KEYS.findall(found[2]), values)
        elif len(values) > 1:
            raise _refused(name, "is given more than once")
        elif name == "mask":
            fields |= {name: {"image_url": values[0]}} if values[0] else {}
        else:
            fields |= field_of(name, values[0], plain)
    for name in fields.keys() & nested.keys():
        raise _refused(name, "is given more than once")
    return fields | nested


def _nest(nested: dict[str, Any], name: str, keys: Sequence[str], values: Sequence[str]) -> None:
    """Put what stands in brackets where it belongs. Deeper than a list of objects goes nothing
    that could be asked for."""
    read = [field_of("", value, ()).get("", "") for value in values]
    match keys:
        case [""] if name not in nested:
            nested[name] = read
        case [key] if key and len(read) == 1:
            _set(nested.setdefault(name, {}), name, key, read[0])
        case [key, ""] if key:
            _set(nested.setdefault(name, {}), name, key, read)
        case ["", key] if key:
            rows = nested.setdefault(name, [{} for _ in read])
            if len(rows) != len(read):  # The k-th value would be taken for another item's.
                raise _refused(name, "cannot be told apart; send the list as JSON text")
            for row, value in zip(rows, read, strict=True):
                _set(row, name, key, value)
        case _:
            raise _refused(name, "is written in a way that is not read; send it as JSON text")


def _set(where: Any, name: str, key: str, value: Any) -> None:
    if not isinstance(where, dict) or key in where:
        raise _refused(name, "is given more than once")
    where[key] = value


def _refused(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{name[:80]}: {why}", field=name[:80])
