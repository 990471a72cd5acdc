"""Gateways on one socket and workers, each a process of its own that can be replaced, and the Redis
and the image store between them. What they run is this version of the code, or an earlier one.
"""

from __future__ import annotations

import io
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from server.embedded import find_redis_server
from server.errors import DarkroomError
from server.listener import listen, url_of
from tests.redis_server import RedisServer
from tests.system.conftest import UNMEASURED

ROOT = Path(__file__).parents[2]
START_SECONDS = 180.0
DRAIN_SECONDS = 20.0
STEP_SECONDS = 0.03
SIMULATED = (str(Path(__file__).with_name("simulated_worker.py")), str(STEP_SECONDS))
REAL = ("-m", "server", "worker", "--checkpoint", "demo", "--device", "cpu")
READY = re.compile("listening on http://|serving demo as ")
FREE_PORTS = range(20_000, 32_000)
"""Below those that a system gives to whoever asks for any: what is free stays so for a moment."""


class Process:
    """`python …` with the code of a version, and what it has said."""

    def __init__(
        self,
        output: Path,
        command: Sequence[str],
        *,
        code: Path = ROOT,
        pass_fds: Sequence[int] = (),
        **settings: Any,
    ) -> None:
        self.output = output
        # An earlier version may have none; where it is not asked it does no harm.
        self.side_port = free_port() if code == ROOT else 0
        named = settings | {"metrics_port": self.side_port, "drain_seconds": DRAIN_SECONDS}
        with output.open("wb") as lines:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=output.parent,
                env=os.environ
                | UNMEASURED
                | {"PYTHONPATH": str(code)}
                | {f"DARKROOM_{name.upper()}": str(value) for name, value in named.items()},
                stdout=lines,
                stderr=lines,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        """Everything so far."""
        return self.output.read_text()

    def await_ready(self) -> None:
        """Until `/readyz` of its side port says so; of a version that has none, its log."""
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self.process.poll() is None, f"it ended:\n{self.said}"
            assert time.monotonic() < deadline, f"it is not ready:\n{self.said}"
            time.sleep(0.05)

    def _ready(self) -> bool:
        if not self.side_port:
            return READY.search(self.said) is not None
        with suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{self.side_port}/readyz", timeout=10)
            return answer.status_code == 200
        return False

    def stop(self) -> int:
        """As a service manager does it, which waits for longer than a drain. Its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DRAIN_SECONDS + 10)


class House:
    """In a folder. `worker`: the command of one; `capacity`: images that one of them holds."""

    def __init__(self, folder: Path, worker: Sequence[str] = SIMULATED, capacity: int = 2) -> None:
        self._folder = folder
        self._worker = worker
        # The newest: scripts of earlier versions crash the one of the wheel.
        self._redis_server = RedisServer(find_redis_server()[0])
        self._redis_server.start()
        self.redis = Redis.from_url(self._redis_server.url)
        self._listener = listen("127.0.0.1", 0)
        self.url = url_of(self._listener)
        self._settings = {
            "redis": self._redis_server.url,
            "data_dir": folder,
            "capacity": capacity,
            "min_free_bytes": 0,
            "lease_seconds": 15,  # nobody dies here, and who is only slow must not look as if
        }
        self.processes: list[Process] = []

    def gateway(self, code: Path = ROOT) -> Process:
        """Another one, on the socket of them all; it has only begun to start."""
        fd = self._listener.fileno()
        command = ("-m", "server", "gateway", "--fd", str(fd))
        return self._start("gateway", command, code, pass_fds=[fd])

    def worker(self, code: Path = ROOT) -> Process:
        """Another one; it has only begun to start."""
        return self._start("worker", self._worker, code)

    def run(self, *arguments: str, code: Path = ROOT) -> str:
        """What a command of `darkroom` prints."""
        return subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            cwd=self._folder,
            env=os.environ | {"PYTHONPATH": str(code), "DARKROOM_REDIS": self._redis_server.url},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()

    @contextmanager
    def through(self, gateway: Process) -> Iterator[None]:
        """Meanwhile this gateway alone answers."""
        others = [each for each in self._running("gateway") if each is not gateway]
        for other in others:
            other.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                other.process.send_signal(signal.SIGCONT)

    def drawn_by(self, id: str) -> str:
        """The name of the worker that has it, or had it last."""
        name: Any = self.redis.hget(f"rq:job:{id}", "worker_name") or b""
        return str(name.decode())

    def close(self) -> None:
        """Whatever is left is killed."""
        for each in self.processes:
            each.process.kill()
            each.process.wait()
        self._listener.close()
        self.redis.close()
        self._redis_server.close()

    def _start(self, kind: str, command: Sequence[str], code: Path, **more: Any) -> Process:
        output = self._folder / f"{kind}-{len(self.processes)}.log"
        started = Process(output, command, code=code, **more, **self._settings)
        self.processes.append(started)
        return started

    def _running(self, kind: str) -> list[Process]:
        named = [each for each in self.processes if each.output.name.startswith(kind)]
        return [each for each in named if each.process.poll() is None]


@contextmanager
def a_house(folder: Path, worker: Sequence[str] = SIMULATED) -> Iterator[House]:
    """For as long as the block takes."""
    house = House(folder, worker)
    try:
        yield house
    finally:
        house.close()


def free_port() -> int:
    """One that nobody listens on."""
    while True:
        port = random.choice(FREE_PORTS)
        with suppress(DarkroomError):
            listen("127.0.0.1", port).close()
            return port


def code_of(commit: str, folder: Path) -> Path:
    """The code as it was then; skips the test where this is no clone that knows the commit."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    try:
        archive = subprocess.run(
            [*command, "archive", "--format=zip", commit, "server"], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("there is no git to fetch an earlier version of the code with")
    if archive.returncode:
        why = archive.stderr.decode(errors="replace").strip()
        pytest.skip(f"the earlier version {commit[:12]} is not in this checkout: {why}")
    with zipfile.ZipFile(io.BytesIO(archive.stdout)) as files:
        files.extractall(folder)
    return folder
