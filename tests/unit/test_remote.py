"""`darkroom generate` as a client: its stream survives."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from server import remote
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
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.0)


def events(handler: Handler) -> list[str]:
    with httpx.Client(transport=httpx.MockTransport(handler), base_url="http://test") as client:
        return [event for event, _ in remote._events(client, "/events")]


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
    assert len(asked) == remote.RECONNECTS + 1


def test_a_stream_that_ends_without_an_end_is_given_up() -> None:
    with pytest.raises(DarkroomError, match="before the generation is done"):
        events(lambda request: httpx.Response(200, content=b": hello\n\n"))
