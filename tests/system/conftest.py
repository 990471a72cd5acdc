"""A real `darkroom serve` of the demo checkpoint in a process of its own, over HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.supervisor import ready_workers

DARKROOM_SERVE = (sys.executable, "-m", "server", "serve")
START_SECONDS = 90.0
UNMEASURED = {"DARKROOM_MAX_STEP_PIXELS": str(32 * 128 * 128)}
"""A worker that is told its cap does not spend seconds on measuring it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They share one server, so they share one process of pytest-xdist."""
    for item in items:
        if {"serve", "served"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("served"))


class Served:
    """A supervisor, what it has said, and a client of its gateway."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.output = data_dir.with_suffix(".log")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*DARKROOM_SERVE, "--port", "0", "--data-dir", str(data_dir), *options],
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=os.environ | UNMEASURED,
            )

    @property
    def said(self) -> str:
        """Everything so far."""
        return self.output.read_text()

    def until(self, what: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Wait until it has said something that matches."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(what, self.said)):
            assert self.process.poll() is None, f"it ended:\n{self.said}"
            assert time.monotonic() < deadline, f"it never said {what!r}:\n{self.said}"
            time.sleep(0.05)
        return found

    @property
    def url(self) -> str:
        """Where it is; waits until it is ready."""
        return self.until(r"Darkroom is ready at (\S+)")[1]

    def client(self) -> httpx.Client:
        """Speaks to it."""
        return httpx.Client(base_url=self.url, timeout=90)

    def pid(self, name: str) -> int:
        """The newest process of a child."""
        if name == "redis":
            return int((self.data_dir / "redis" / "redis.pid").read_text())
        return int(re.findall(rf"{name} +started(?: again)?, process (\d+)", self.said)[-1])

    def kill(self, name: str) -> None:
        """As if the machine had run out of memory."""
        os.kill(self.pid(name), signal.SIGKILL)

    def await_workers(self, count: int) -> None:
        """Wait until so many are ready."""
        deadline = time.monotonic() + START_SECONDS
        while ready_workers(self.url) != count:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def stop(self, signum: signal.Signals = signal.SIGINT, seconds: float = 60.0) -> int:
        """Ctrl-C. Its exit status; nothing of its is left, whatever happened."""
        self.process.send_signal(signum)
        watchdog = threading.Timer(seconds, self.process.kill)
        watchdog.start()
        try:
            return self.process.wait()
        finally:
            watchdog.cancel()


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers of the test's own."""
    running: list[Served] = []

    def start(*options: str) -> Served:
        running.append(Served(tmp_path / f"data{len(running)}", *options))
        return running[-1]

    yield start
    for served in running:
        if served.process.poll() is None:
            served.stop()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that leave it working."""
    served = Served(tmp_path_factory.mktemp("served") / "data")
    yield served
    assert served.stop() == 0, served.said
