"""Pictures to send, and checkpoints that take them."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

CARDS = """
[checkpoints.any]
extends = "demo"
tasks = ["text-to-image", "image-to-image", "inpainting", "depth-to-image"]
defaults = { strength = 0.75, sigmas = "karras" }

[checkpoints.painter]
extends = "demo"
tasks = ["inpainting"]
limits = { max_input_pixels = 40000 }

[checkpoints.x4]
extends = "demo"
native_size = 512
tasks = ["upscale"]
defaults = { sampler = "ddim", num_inference_steps = 75 }
limits = { side_multiple = 32, min_side = 256, max_side = 2048, max_pixels = 1048576 }

[checkpoints.xl]
extends = "demo"
family = "sdxl"
tasks = ["text-to-image", "image-to-image"]
defaults = { sampler = "euler", guidance_scale = 5.0, num_inference_steps = 40 }

[checkpoints.xl-refiner]
extends = "xl"
tasks = ["image-to-image"]
defaults = { guidance_scale = 6.0, num_inference_steps = 30, strength = 0.3 }
"""


def picture(width: int = 128, height: int = 128, form: str = "PNG", **options: Any) -> bytes:
    """A file of something red."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 20, 20)).save(out, form, **options)
    return out.getvalue()


def mask(width: int = 128, height: int = 128, shade: int = 255) -> bytes:
    """A file whose left half is white, or of another shade."""
    out, drawn = io.BytesIO(), Image.new("L", (width, height))
    drawn.paste(shade, (0, 0, width // 2, height))
    drawn.save(out, "PNG")
    return out.getvalue()


def text(data: bytes) -> str:
    """As JSON carries it."""
    return base64.b64encode(data).decode()


def body(**fields: Any) -> dict[str, Any]:
    """A request to `any`; pictures may be given as bytes."""
    sent = {"checkpoint": "any", "prompt": "a red circle"} | fields
    return {name: text(v) if isinstance(v, bytes) else v for name, v in sent.items()}
