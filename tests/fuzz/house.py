"""A gateway and workers in processes of their own, whose memory and answers can be watched."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
COUNTED = re.compile(r'^darkroom_http_requests_total{.*status="(\d+)".*} (\S+)$', re.MULTILINE)
LISTENING = re.compile(r"listening on http://([\d.]+):(\d+)")


class Process:
    """One of ours, with what it has said."""

    def __init__(self, folder: Path, *arguments: str, **settings: Any) -> None:
        self.output = folder / f"{arguments[0]}.log"
        named = {f"DARKROOM_{name.upper()}": str(value) for name, value in settings.items()}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | named,
            )

    @property
    def said(self) -> str:
        """Everything so far."""
        return self.output.read_text()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def until(self, what: re.Pattern[str]) -> re.Match[str]:
        """Wait until it has said something that matches."""
        deadline = time.monotonic() + START_SECONDS
        while not (found := what.search(self.said)):
            assert self.alive, f"it ended:\n{self.said}"
            assert time.monotonic() < deadline, f"it never said {what.pattern!r}:\n{self.said}"
            time.sleep(0.02)
        return found

    def end(self) -> None:
        """As a service manager ends it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()


class GatewayProcess(Process):
    """`darkroom gateway` on a port of its own."""

    def __init__(self, redis_url: str, folder: Path, **settings: Any) -> None:
        made = {"redis": redis_url, "data_dir": folder, "port": 0, "max_wait_seconds": 5.0}
        super().__init__(folder, "server", "gateway", **(made | settings))
        found = self.until(LISTENING)
        self.address = found[1], int(found[2])
        self.url = "http://{}:{}".format(*self.address)

    def client(self, **options: Any) -> httpx.Client:
        """Speaks to it."""
        return httpx.Client(base_url=self.url, **({"timeout": 30.0} | options))

    def connect(self, seconds: float = 10.0) -> socket.socket:
        """A connection to say anything on."""
        return socket.create_connection(self.address, seconds)

    def answers(self) -> Counter[int]:
        """How often it has answered with each status."""
        with self.client() as client:
            told = client.get("/metrics").text
        counted: Counter[int] = Counter()
        for status, number in COUNTED.findall(told):
            counted[int(status)] += int(float(number))
        return counted

    @property
    def memory(self) -> int:
        """Bytes it has in use."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class WorkerProcess(Process):
    """Draws for these checkpoints without a model; see `tests.fuzz.worker`."""

    def __init__(self, redis_url: str, folder: Path, *checkpoints: str) -> None:
        super().__init__(
            folder,
            "tests.fuzz.worker",
            json.dumps(checkpoints),
            redis=redis_url,
            data_dir=folder,
            metrics_port=0,
        )


def wait_until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Until it is; an AssertionError if that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """A figure, for whoever looks at the run."""
    with capsys.disabled():
        sys.stdout.write(f"\n{line}\n")
