"""A1111's extra networks, such as `<lora:name:0.8>`: out of the prompt, into fields."""

from __future__ import annotations

import re

from server.api.schemas import LoraRequest
from server.errors import FieldError, InvalidSpec
from server.spec import ADAPTER_NAME, Warn

TAG = re.compile(r"<(\w+):([^<>]+)>")
LORAS = ("lora", "lyco")
MOST = 10.0


def extracted(prompt: str, most: int) -> tuple[str, list[LoraRequest], list[Warn]]:
    """The prompt, of at most so many characters, without its tags, the LoRAs they name, and what of
    them means nothing here.

    Raises:
        InvalidSpec: it is too long, or a scale is no number, or none that can be drawn with.
    """
    if len(prompt) > most:
        message = f"prompt: has {len(prompt):,} characters, at most {most:,} fit"
        raise InvalidSpec.of([FieldError("prompt", message)])
    loras: dict[str, LoraRequest] = {}
    warnings: list[Warn] = []
    for tag, kind, arguments in ((m[0], m[1].lower(), m[2]) for m in TAG.finditer(prompt)):
        if kind not in LORAS:
            warnings.append(_warning(f"prompt: {tag[:80]} is ignored"))
            continue
        name, *rest = (part.strip() for part in arguments.split(":"))
        lora = LoraRequest(name=_name(name, tag), scale=_scale(rest, tag))
        if name in loras:
            warnings.append(_warning(f"prompt: of {name!r}, the last scale counts"))
        if len(rest) > 1 and rest[1:] != rest[:1]:
            warnings.append(_warning(f"prompt: of {tag[:80]}, the first scale counts for all"))
        loras[name] = lora
    return TAG.sub("", prompt).strip() if "<" in prompt else prompt, list(loras.values()), warnings


def _name(name: str, tag: str) -> str:
    if not re.fullmatch(ADAPTER_NAME, name):
        raise InvalidSpec.of([FieldError("prompt", f"prompt: {tag[:80]} does not name a file")])
    return name


def _scale(rest: list[str], tag: str) -> float:
    try:
        scale = float(rest[0]) if rest else 1.0
    except ValueError:
        scale = float("nan")
    if not abs(scale) <= MOST:
        message = f"prompt: {tag[:80]}: the scale must be a number between {-MOST:g} and {MOST:g}"
        raise InvalidSpec.of([FieldError("prompt", message)])
    return scale


def _warning(message: str) -> Warn:
    return Warn(code="extra_network_ignored", message=message, field="prompt")
