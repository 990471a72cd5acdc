"""What gateway processes take in and hand out: generations accepted a second by one process and by
two on one socket, and the CPU time of a process for each picture that is fetched.

A real `darkroom gateway` on a real Redis, with no worker. This process is the load, on kept-alive
connections and with requests that are put together beforehand; it shares the machine's cores with
all that it measures.

    python -m benchmarks.gateways [rounds]
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.accept import BODY
from benchmarks.timing import Figure, noted
from server.broker import keys
from server.embedded import EmbeddedRedis
from server.listener import listen, url_of
from server.supervisor import command, get
from tests.api.house import Hands, wait_until

CONNECTIONS = 32
REQUESTS = 6000
FETCHES = 3000
WARM_UP = 600
PICTURE_BYTES = 400_000
TICKS = os.sysconf("SC_CLK_TCK")
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Served:
    """Gateways on one socket."""

    address: Address
    pids: list[int]
    redis: redis.Redis
    folder: Path

    def cpu_seconds(self) -> float:
        """Of all gateway processes so far."""
        return sum(map(_cpu_seconds, self.pids))


def figures(rounds: int = 3) -> Iterator[Figure]:
    """Acceptance with one and with two processes, in turn; then pictures."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for gateways, seen in rates.items():
            with served(gateways) as here:
                seen.append(accepted(here, REQUESTS))
    one, two = (statistics.median(seen) for seen in rates.values())
    detail = f"medians of {rounds} alternating runs, {CONNECTIONS} connections; the load shares "
    detail += f"{os.cpu_count()} cores with gateways and Redis"
    yield noted("(d) generations accepted, one gateway process", one, "/s", detail)
    yield noted("(d) generations accepted, two on one socket", two, "/s", f"{two / one:.2f} times")
    with served(1) as here:
        cpu, rate = fetched(here, FETCHES)
    size = f"{PICTURE_BYTES // 1000} kB each, {rate:.0f} a second"
    yield noted("(d) gateway CPU to hand out a picture", cpu * 1e6, "us", size)


def accepted(here: Served, requests: int) -> float:
    """Generations a second."""
    send(here.address, _post(), WARM_UP, 202)
    began = time.perf_counter()
    send(here.address, _post(), requests, 202)
    return requests / (time.perf_counter() - began)


def fetched(here: Served, requests: int) -> tuple[float, float]:
    """CPU seconds of the gateway for each picture, and pictures a second."""
    send(here.address, _post(), 1, 202)
    [raw] = here.redis.zrange(keys.owned("local"), 0, 0)  # type: ignore[misc]
    id = raw.decode()
    Hands(here.redis, here.folder).succeed(id, secrets.token_bytes(PICTURE_BYTES))
    get = f"GET /v1/generations/{id}/images/0 HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    send(here.address, get, WARM_UP, 200)
    cpu, began = here.cpu_seconds(), time.perf_counter()
    send(here.address, get, requests, 200)
    return (here.cpu_seconds() - cpu) / requests, requests / (time.perf_counter() - began)


def send(address: Address, request: bytes, count: int, status: int) -> None:
    """The same request so often, each connection sending one after the other."""
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as ready:
        left = count - min(count, CONNECTIONS)
        for _ in range(min(count, CONNECTIONS)):
            client = stack.enter_context(socket.create_connection(address))
            client.sendall(request)
            ready.register(client, selectors.EVENT_READ, Answer(status))
        waiting = min(count, CONNECTIONS)
        while waiting:
            for key, _ in ready.select():
                if not key.data.read(key.fileobj):
                    continue
                if left:
                    left -= 1
                    key.fileobj.sendall(request)  # type: ignore[union-attr]
                else:
                    waiting -= 1
                    ready.unregister(key.fileobj)


class Answer:
    """What one connection is reading."""

    def __init__(self, status: int) -> None:
        self._expected = f"HTTP/1.1 {status} ".encode()
        self._head = b""
        self._left = -1

    def read(self, client: socket.socket) -> bool:
        """Read on; whether that was all of one answer."""
        data = client.recv(1 << 20)
        if not data:
            raise SystemExit("the gateway hung up")
        if self._left < 0:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return False
            if not head.startswith(self._expected):
                raise SystemExit(f"the gateway answered {self._head[:500]!r}")
            found = LENGTH.search(head)
            assert found is not None
            self._left, data, self._head = int(found[1]), body, b""
        self._left -= len(data)
        done = self._left == 0
        if done:
            self._left = -1
        return done


@contextlib.contextmanager
def served(gateways: int) -> Iterator[Served]:
    """`darkroom gateway` with so many processes, warm."""
    with (
        tempfile.TemporaryDirectory() as name,
        _redis(Path(name)) as url,
        redis.Redis.from_url(url) as client,
        listen("127.0.0.1", 0) as listener,
    ):
        client.set(keys.served("demo"), "nobody")
        options = ["--gateways", str(gateways), "--data-dir", name, "--redis", url]
        options += ["--fd", str(listener.fileno()), "--log-format", "json"]
        limits = {"DARKROOM_MAX_QUEUED": "10000000", "DARKROOM_MAX_QUEUED_SECONDS": "1e9"}
        process = subprocess.Popen(
            command("gateway", *options),
            env=os.environ | limits,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
        try:
            address: Address = listener.getsockname()
            wait_until(lambda: _up(url_of(listener)) == gateways - (gateways == 1), seconds=60)
            pids = _children(process.pid) if gateways > 1 else [process.pid]
            yield Served(address, pids, client, Path(name))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    embedded = EmbeddedRedis(folder)
    embedded.start()
    try:
        yield embedded.url
    finally:
        embedded.stop()


def _post() -> bytes:
    head = "POST /v1/generations HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()


def _up(url: str) -> int:
    """Gateways that tell of each other; -1 while none answers."""
    page = get(url, "/metrics")
    return -1 if page is None else page.count(b"darkroom_process_up{")


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def _cpu_seconds(pid: int) -> float:
    fields: Sequence[str] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    for figure in figures(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        print(figure, flush=True)
