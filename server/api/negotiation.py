"""The request headers with a grammar of their own: `Accept` (RFC 9110), `Prefer` (RFC 7240),
`Idempotency-Key`."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from server.errors import BadRequest, NotAcceptable
from server.spec import OutputFormat

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": JSON},
        "id": {"type": "string"},
        "retry": {"type": "integer", "minimum": 0},
    },
}
"""The schema of one server-sent event."""
MAX_KEY_CHARACTERS = 255


def accepted_format(accept: str, formats: Sequence[OutputFormat]) -> OutputFormat | None:
    """The first of `formats` that is liked better than JSON, or None for the JSON record.

    Raises:
        NotAcceptable: neither JSON nor any of them is liked at all.
    """
    if not accept or accept in ("*/*", JSON):
        return None
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    json = _quality(JSON, ranges)
    best = max(formats, key=lambda f: _quality(f.media_type, ranges))
    quality = _quality(best.media_type, ranges)
    if quality > json:
        return best
    if json > 0:
        return None
    able = ", ".join([JSON, *(f.media_type for f in formats)])
    raise NotAcceptable(f"Accept {accept[:200]!r}: this request can be answered with {able}")


def wait_seconds(prefer: str) -> int | None:
    """The first `wait=SECONDS`; as RFC 7240 has it, what cannot be read is no preference."""
    for preference in prefer.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = value.strip().strip('"')
            readable = seconds.isascii() and seconds.isdigit() and len(seconds) < 10
            return int(seconds) if readable else None
    return None


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, if there is one.

    Raises:
        BadRequest: it is none that could be kept.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not (key.isascii() and key.isprintable()):
        rule = f"1 to {MAX_KEY_CHARACTERS} printable ASCII characters"
        raise BadRequest(f"Idempotency-Key: must be {rule}", field="Idempotency-Key")
    return key


def _range(text: str) -> tuple[str, float]:
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return kind, _number(value)
    return kind, 1.0


def _number(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The most specific range decides."""
    family = media_type.partition("/")[0] + "/*"
    for wanted in (media_type, family, "*/*"):
        for kind, quality in ranges:
            if kind == wanted:
                return quality
    return 0.0
