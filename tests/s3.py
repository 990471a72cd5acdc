"""A real S3 API over HTTP for tests, mortal: nanio checks each signature, and its buckets are
folders that a test can look into."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ACCESS, SECRET = "darkroom", "not-a-secret"


class S3Server:
    """One server process in a folder of its own; `kill` and `start` keep the data."""

    def __init__(self, host: str = "127.0.0.1", *, before: tuple[str, ...] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="darkroom-")
        self._before = before
        self.host, self.port = host, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What lets a client in."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def folder(self, bucket: str) -> Path:
        """Where the files of a bucket lie, which is made if need be."""
        path = Path(self._folder.name) / bucket
        path.mkdir(exist_ok=True)
        return path

    def start(self, *, wait: bool = True) -> None:
        """Run, and wait until it listens."""
        command = [*self._before, sys.executable, "-m", "nanio", "serve", "--no-access-log"]
        places = ["--host", self.host, "--port", str(self.port), "--data-dir", self._folder.name]
        self._process = subprocess.Popen(
            [*command, *places, "--log-level", "error"],
            env=os.environ | {"NANIO_ACCESS_KEY": ACCESS, "NANIO_SECRET_KEY": SECRET},
        )
        deadline = time.monotonic() + 30
        while wait and not listens(self.host, self.port):
            assert self._process.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server did not come up"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: connections break, and new ones are refused."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        self._folder.cleanup()


def free_port() -> int:
    """One that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(host: str, port: int) -> bool:
    """Whether somebody does."""
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
