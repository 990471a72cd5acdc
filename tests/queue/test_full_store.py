"""A disk that is full in the middle of a picture: what was drawn waits until there is room."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.broker import keys
from tests.queue.crew import ROOT, Desk, short, until
from tests.redis_server import RedisServer

FILE_BYTES = 300
"""Less than the smallest picture with its recipe."""


class Cramped:
    """The worker's process, and what it has said."""

    def __init__(self, url: str, folder: Path) -> None:
        settings = short(url).model_dump(mode="json", exclude_defaults=True)
        options = {"settings": settings, "folder": str(folder), "file_bytes": FILE_BYTES}
        command = [sys.executable, "-m", "tests.queue.cramped", json.dumps(options)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def until(self, said: str) -> re.Match[str]:
        """Read on to a line that matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(said, line):
                return found
        raise AssertionError(f"it ended and never said {said!r}")

    def make_room(self) -> None:
        self.process.send_signal(signal.SIGUSR1)


@pytest.fixture
def cramped(desk: Desk, server: RedisServer, tmp_path: Path) -> Iterator[Cramped]:
    cramped = Cramped(server.url, tmp_path)
    until(lambda: desk.redis.smembers(keys.workers("demo")), seconds=60)
    yield cramped
    cramped.process.kill()
    cramped.process.communicate()


def pictures(folder: Path) -> list[Path]:
    """Those that a reader could be given: without what is being written."""
    return [path for path in folder.rglob("*") if path.is_file() and "#" not in path.name]


def test_what_a_full_store_refuses_is_kept_whole_as_soon_as_there_is_room(
    desk: Desk, cramped: Cramped, tmp_path: Path
) -> None:
    id = desk.submit(num_images=2)
    for _ in range(3):
        cramped.until(r"the image store cannot be written at gen_\S+: .*File too large")
        assert pictures(tmp_path) == []
        cramped.until("trying again: the image store cannot be written")
    assert desk.status(id) == "running"
    cramped.make_room()
    assert int(cramped.until(r"room again, after (\d+) refusals")[1]) >= 3
    until(lambda: desk.status(id) == "succeeded")
    images = desk.record(id).images
    for image in images:
        stored = (tmp_path / "images" / image.key).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == image.sha256
        assert len(stored) > FILE_BYTES
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(tmp_path / "images" / image.key for image in images), "nothing is left"


def test_what_finds_no_room_until_its_deadline_expires_and_leaves_nothing(
    desk: Desk, cramped: Cramped, tmp_path: Path
) -> None:
    id = desk.submit(deadline_seconds=3.0)
    cramped.until("trying again: the image store cannot be written")
    until(lambda: desk.status(id) == "expired")
    error = desk.record(id).error
    assert error is not None
    assert "the image store cannot be written" in error.message
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    cramped.make_room()
    other = desk.submit()
    until(lambda: desk.status(other) == "succeeded")
