"""From what OpenAI calls a mask, which is transparent where to draw, to ours, which is white."""

from __future__ import annotations

import io

from PIL import Image, ImageChops

from server.api.uploads import decoded
from server.errors import InvalidSpec
from server.pixels import BadPicture, open_picture

OPAQUE = 255


def repainted(content: str | bytes, field: str, max_pixels: int) -> bytes | None:
    """What is transparent in a picture as a file in which that is white; None where nothing is.

    Raises:
        InvalidSpec: it is no picture.
    """
    try:
        data = content if isinstance(content, bytes) else decoded(content)
        with open_picture(data, max_pixels) as opened:
            return _inverted(opened) if opened.has_transparency_data else None
    except BadPicture as error:
        raise InvalidSpec(f"{field}: {error}", field=field) from None


def _inverted(picture: Image.Image) -> bytes | None:
    """As soft as it was painted; where softness ends is not for a door to say."""
    file = io.BytesIO()
    alpha = picture.convert("RGBA").getchannel("A")
    if alpha.getextrema()[0] == OPAQUE:
        return None
    ImageChops.invert(alpha).save(file, "PNG", compress_level=1)
    return file.getvalue()
