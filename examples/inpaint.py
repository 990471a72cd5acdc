"""Draw the middle of a picture again, and keep the rest as it is: python examples/inpaint.py [URL]

Needs httpx, Pillow and a server (make serve). First draws a picture, then paints into it.
"""

import io
import json
import sys

import httpx
from PIL import Image

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
AS_PICTURE = {"Accept": "image/png", "Prefer": "wait=120"}


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


with httpx.Client(base_url=URL, timeout=150) as client:
    body = {"prompt": "a red circle on a blue background", "seed": 7}
    first = client.post("/v1/generations", json=body, headers=AS_PICTURE).raise_for_status()
    width, height = Image.open(io.BytesIO(first.content)).size

    mask = Image.new("L", (width, height))  # black is kept
    mask.paste(255, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    request = {"task": "inpainting", "prompt": "a yellow triangle on a blue background", "seed": 8}
    parts = {
        "request": (None, json.dumps(request), "application/json"),
        "image": ("first.png", first.content),
        "mask_image": ("mask.png", png(mask)),
    }
    painted = client.post("/v1/generations", files=parts, headers=AS_PICTURE).raise_for_status()

for name, content in (("first.png", first.content), ("painted.png", painted.content)):
    with open(name, "wb") as file:
        file.write(content)
    print(f"wrote {name}")
