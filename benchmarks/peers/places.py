"""Servers of others as processes: where they listen, how they are started and ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import httpx
import psutil

from benchmarks.peers.orders import Order
from server.tied import tied

PATIENCE_SECONDS = 600.0
END_SECONDS = 20.0
LOG_BYTES = 2000
"""Of a log, to show why somebody does not start."""

Shown = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The same files for everybody."""

    name: str
    folder: Path
    catalog: Path | None = None
    """Where Darkroom reads of it, unless it ships with it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens, and its processes."""

    url: str
    pids: list[int]


class Peer(Protocol):
    """Somebody who draws."""

    def open(self, checkpoint: Checkpoint) -> contextlib.AbstractContextManager[Place]:
        """A server that is ready, and gone afterwards."""

    async def draw(self, client: httpx.AsyncClient, order: Order, shown: Shown | None) -> bytes:
        """A PNG or JPEG, when it is there.

        Args:
            shown: called when the first preview is there, by those who make any. Without it
                none is asked for.
        """


@contextlib.contextmanager
def process(words: Sequence[str], port: int, more: Mapping[str, str]) -> Iterator[Place]:
    """A command that listens on this port, in these surroundings besides ours.

    Raises:
        RuntimeError: it does not start; has the end of what it said.
    """
    env = os.environ | {"PYTHONPATH": str(Path.cwd())} | more
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(
            tied(*words), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            _await_open(running, port, log)
            yield Place(f"http://127.0.0.1:{port}", [running.pid])
        finally:
            _end(running)


def free_port() -> int:
    """Of the loopback interface. Should somebody else be quicker, its server does not start."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _await_open(running: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/docs", trust_env=False)
            return
        if running.poll() is not None or time.monotonic() > deadline:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - LOG_BYTES))
            raise RuntimeError(f"it did not start:\n{log.read().decode(errors='replace')}")
        time.sleep(0.1)


def _end(running: subprocess.Popen[bytes]) -> None:
    """With its children: not all of these servers end theirs."""
    children = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(running.pid).children(recursive=True)
    running.terminate()
    try:
        running.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
