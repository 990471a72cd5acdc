"""`darkroom generate` as a client: its stream survives, and its picture is shown."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from rich.console import Console

from server import following, remote
from server.errors import DarkroomError

Handler = Callable[[httpx.Request], httpx.Response]

EVENT = b"id: %d-0\nevent: %b\ndata: {}\n\n"


class Torn(httpx.SyncByteStream):
    """A body whose connection breaks after its first part."""

    def __init__(self, part: bytes) -> None:
        self.part = part

    def __iter__(self) -> Iterator[bytes]:
        yield self.part
        raise httpx.ReadError("torn")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FIRST_PAUSE_SECONDS", 0.0)


def events(handler: Handler) -> list[str]:
    with httpx.Client(transport=httpx.MockTransport(handler), base_url="http://test") as client:
        return [event for event, _ in following.events(client, "/events")]


def test_a_stream_that_breaks_after_each_event_is_followed_to_its_end() -> None:
    def tear(request: httpx.Request) -> httpx.Response:
        number = int(request.headers["Last-Event-ID"].partition("-")[0]) + 1
        kind = b"done" if number == 20 else b"progress"
        return httpx.Response(200, stream=Torn(EVENT % (number, kind)))

    assert events(tear) == ["progress"] * 19 + ["done"]


def test_a_stream_that_breaks_and_brings_nothing_is_given_up() -> None:
    asked = []

    def tear(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, stream=Torn(b": hello\n\n"))

    with pytest.raises(httpx.TransportError):
        events(tear)
    assert len(asked) == following.RECONNECTS + 1


def test_a_stream_that_ends_without_an_end_is_given_up() -> None:
    with pytest.raises(DarkroomError, match="before the generation is done"):
        events(lambda request: httpx.Response(200, content=b": hello\n\n"))


IMAGE = {"url": "/picture", "width": 8, "height": 8, "seed": 1}


def saved(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, terminal: bool, shown: remote.Shown
) -> tuple[str, list[str]]:
    """What standard output gets of a picture, and which files are opened."""
    opened: list[str] = []
    out, picture = io.StringIO(), io.BytesIO()
    out.isatty = lambda: terminal  # type: ignore[method-assign]
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm-kitty")
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("typer.launch", lambda path: opened.append(path) or 0)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=picture.getvalue()))
    console = Console(stderr=True, file=io.StringIO())
    with httpx.Client(transport=transport, base_url="http://test") as client:
        remote.save(client, IMAGE, folder / "a.png", console, shown)
    assert (folder / "a.png").read_bytes() == picture.getvalue()
    return out.getvalue(), opened


@pytest.mark.parametrize(
    ("terminal", "inline", "expected"),
    [(True, None, True), (True, False, False), (False, None, False), (False, True, False)],
)
def test_a_picture_is_shown_on_terminals_only(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    terminal: bool,
    inline: bool | None,
    expected: bool,
) -> None:
    shown = remote.Shown(inline=inline)
    said, opened = saved(monkeypatch, tmp_path, terminal=terminal, shown=shown)
    assert said.startswith("\x1b_G") is expected
    assert bool(said) is expected
    assert opened == []


def test_a_picture_is_opened_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = remote.Shown(open=True)
    _, opened = saved(monkeypatch, tmp_path, terminal=False, shown=shown)
    assert opened == [str(tmp_path / "a.png")]
