"""Pictures in the terminal itself, where it can show them. Pure: bytes and an environment in, what
is to be written out."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from enum import StrEnum

from PIL import Image

MOST_PIXELS = (640, 640)
"""What a picture is made smaller to: it would leave the screen, and has its file."""

KITTY_CHUNK = 4096
"""Characters that one escape sequence of kitty's protocol may carry."""


class Protocol(StrEnum):
    """How a terminal is given a picture."""

    KITTY = "kitty"
    """https://sw.kovidgoyal.net/kitty/graphics-protocol"""
    ITERM2 = "iterm2"
    """https://iterm2.com/documentation-images.html"""


def protocol(env: Mapping[str, str]) -> Protocol | None:
    """What the terminal of this environment understands; None where it is not known to understand
    any, or where a multiplexer stands between."""
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "").lower()
    if "TMUX" in env or "STY" in env or term.startswith(("screen", "tmux")):
        return None
    if "KITTY_WINDOW_ID" in env or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return Protocol.KITTY
    if _number(env.get("KONSOLE_VERSION", "")) >= 220401:
        return Protocol.KITTY
    if program in ("iterm.app", "wezterm") or env.get("LC_TERMINAL") == "iTerm2":
        return Protocol.ITERM2
    return None


def escape_sequence(picture: bytes, how: Protocol) -> str:
    """What shows a PNG, JPEG or WebP, and puts the cursor below it."""
    png = _small_png(picture)
    data = base64.b64encode(png).decode()
    if how is Protocol.ITERM2:
        return f"\x1b]1337;File=inline=1;size={len(png)}:{data}\a\n"
    return "".join(_kitty(data)) + "\n"


def _kitty(data: str) -> Iterator[str]:
    """The first part says that it is a PNG to be shown at once, and that no answer is wanted."""
    about = "a=T,f=100,q=2,"
    for start in range(0, len(data), KITTY_CHUNK):
        more = int(start + KITTY_CHUNK < len(data))
        yield f"\x1b_G{about}m={more};{data[start : start + KITTY_CHUNK]}\x1b\\"
        about = ""


def _small_png(picture: bytes) -> bytes:
    with Image.open(io.BytesIO(picture)) as opened:
        shown = opened.convert("RGB")
    shown.thumbnail(MOST_PIXELS)
    out = io.BytesIO()
    shown.save(out, "PNG")
    return out.getvalue()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
