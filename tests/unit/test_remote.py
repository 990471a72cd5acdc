"""`darkroom generate` as a client: its private server is alone, its stream survives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server import remote
from server.config import Settings
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


def test_a_private_server_shares_nothing_with_the_one_that_is_set_up_here(tmp_path: Path) -> None:
    (tmp_path / "darkroom.toml").write_text(
        'redis = "redis://production"\nstorage = "s3://pictures"\ndefault_checkpoint = "other"\n'
        'host = "0.0.0.0"\nmetrics_port = 9100\nthreads = 3\n'
    )
    script = "from server.config import Settings; print(Settings().model_dump_json())"
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"DARKROOM_REDIS": "redis://production"} | remote.ALONE,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    settings = Settings.model_validate_json(said)
    assert (settings.redis, settings.storage, settings.default_checkpoint) == ("", "", "")
    assert (settings.host, settings.metrics_port, settings.threads) == ("127.0.0.1", 0, 3)


def test_a_private_server_is_started_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: dict[str, str] = {}

    def start(*arguments: object, env: dict[str, str], **_: object) -> None:
        started.update(env)
        raise OSError("started")

    monkeypatch.setattr(remote.subprocess, "Popen", start)
    monkeypatch.setenv("DARKROOM_REDIS", "redis://production")
    with pytest.raises(OSError, match="started"), remote.private_server(Settings(), "demo"):
        pass
    assert started["DARKROOM_REDIS"] == ""
