"""Requests and answers of this door as the documents show them. A test sends every request."""

from __future__ import annotations

import json
from typing import Any

from server.api.examples import EXAMPLE_ID, HERE, PICTURE

CLEARED = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAIAAAACAAQMAAAD58POIAAAABlBMVEUAAAD///+l2Z"
    "/dAAAAAnRSTlP/AOW3MEoAAAApSURBVHjaY2AYBaMAN2BkYGBg+I/EYUJXMSowKjAqMCqAXWAUjAJ8AACB0AGAKG"
    "QWIgAAAABJRU5ErkJggg=="
)
"""As large as the example's picture; transparent in the middle."""

GENERATE: dict[str, Any] = {
    "model": "demo",
    "prompt": "a red circle on a blue background",
    "size": "128x128",
    "seed": 7,
    "num_inference_steps": 20,
}
STREAM: dict[str, Any] = {"prompt": "a yellow star", "stream": True, "partial_images": 2}
EDIT: dict[str, Any] = {
    "model": "demo",
    "prompt": "a yellow star on a blue background",
    "images": [{"image_url": PICTURE}],
    "mask": {"image_url": CLEARED},
}
EDIT_FORM: dict[str, Any] = {
    "image": "(a file)",
    "mask": "(a file)",
    "prompt": "a yellow star on a blue background",
    "n": 1,
}
VARIATION_FORM: dict[str, Any] = {"image": "(a file)", "n": 2}

USAGE: dict[str, Any] = {
    "input_tokens": 7,
    "input_tokens_details": {"text_tokens": 7, "image_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 7,
}
WARNING = {
    "code": "quality_ignored",
    "message": "quality: has no meaning here; num_inference_steps decides",
    "field": "quality",
}
IMAGES: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "created": 1763711642,
    "data": [{"b64_json": "iVBORw0KGgoAAAANSUhEUgAA…", "seed": 7}],
    "background": "opaque",
    "output_format": "png",
    "size": "128x128",
    "usage": USAGE,
    "warnings": [WARNING],
}
BY_ADDRESS: dict[str, Any] = IMAGES | {
    "data": [{"url": f"http://127.0.0.1:8000{HERE}/images/0", "seed": 7}],
    "warnings": [],
}
MODEL: dict[str, Any] = {
    "id": "demo",
    "object": "model",
    "created": 0,
    "owned_by": "darkroom",
    "checkpoint": "demo",
}
MODELS: dict[str, Any] = {"object": "list", "data": [MODEL]}
_EVENT = {
    "b64_json": "iVBORw0KGgo…",
    "created_at": 1763711642,
    "size": "128x128",
    "quality": "auto",
    "background": "opaque",
}


def events(kind: str) -> str:
    """How a stream looks."""
    partial = _EVENT | {"output_format": "jpeg", "partial_image_index": 0, "index": 0}
    completed = _EVENT | {"output_format": "png", "index": 0, "seed": 7, "usage": USAGE}
    said = {f"{kind}.partial_image": partial, f"{kind}.completed": completed | {"warnings": []}}
    return "".join(
        f"event: {name}\ndata: {json.dumps({'type': name} | data, separators=(',', ':'))}\n\n"
        for name, data in said.items()
    )
