"""Which terminals are given pictures, and how."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from server.inline import KITTY_CHUNK, Protocol, escape_sequence, protocol


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"TERM": "xterm-kitty"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, Protocol.KITTY),
        ({"TERM": "xterm-ghostty"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230401"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "210401"}, None),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "new"}, None),
        ({"TERM_PROGRAM": "iTerm.app"}, Protocol.ITERM2),
        ({"TERM_PROGRAM": "WezTerm"}, Protocol.ITERM2),
        ({"LC_TERMINAL": "iTerm2"}, Protocol.ITERM2),
        ({"TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "dumb"}, None),
        ({}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, None),
    ],
)
def test_only_terminals_that_can_are_given_pictures(env, expected) -> None:
    assert protocol(env) is expected


def picture(form: str, size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(out, form)
    return out.getvalue()


def shown(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_kitty_gets_a_png_in_parts_of_which_the_last_says_so(form: str) -> None:
    said = escape_sequence(picture(form, (300, 200)), Protocol.KITTY)
    parts = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", said)
    assert len(parts) > 2
    assert parts[0][0] == "a=T,f=100,q=2,m=1"
    assert [about for about, _ in parts[1:]] == ["m=1"] * (len(parts) - 2) + ["m=0"]
    assert max(len(data) for _, data in parts) <= KITTY_CHUNK
    whole = shown("".join(data for _, data in parts))
    assert (whole.format, whole.size) == ("PNG", (300, 200))


def test_iterm2_gets_one_sequence() -> None:
    said = escape_sequence(picture("PNG", (32, 32)), Protocol.ITERM2)
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):([A-Za-z0-9+/=]+)\x07\n", said)
    assert found is not None
    assert int(found[1]) == len(base64.b64decode(found[2]))


def test_a_large_picture_is_shown_smaller() -> None:
    said = escape_sequence(picture("PNG", (2000, 1000)), Protocol.ITERM2)
    assert shown(said.partition(":")[2][:-2]).size == (640, 320)
