"""Many connections at once that want nothing, or want it very slowly: others do not notice."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import Redis

from tests.api.house import Hands
from tests.fuzz.house import GatewayProcess, tell
from tests.redis_server import RedisServer

MANY = 10_000
TOO_MANY = 50
SLOW = 300
STREAMS = 500
UNSERVED = "sd-v1-5"
BESIDE = 600
"""Files that this process and the gateway need for anything else."""
GROWTH = 200 * 2**20
AT_MOST = 5.0
"""Seconds in which somebody else is answered, in the middle of it all, however busy the machine."""
MEDIAN = 0.25


@pytest.fixture
def many() -> Iterator[int]:
    """How many connections this machine lets a process have, up to 10,000."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + BESIDE if hard == resource.RLIM_INFINITY else min(MANY + BESIDE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield min(MANY, max(soft, wanted) - BESIDE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def connected(gate: GatewayProcess, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(gate.connect(20)) for _ in range(count)]


def test_ten_thousand_idle_connections_are_held_and_more_are_refused(
    fuzz_redis: RedisServer, tmp_path: Path, many: int, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = GatewayProcess(fuzz_redis.url, tmp_path, max_connections=many - TOO_MANY)
    try:
        before = gate.memory
        with gate.client() as client:
            assert client.get("/healthz").status_code == 200
            with connected(gate, many) as idle:
                assert answered_in(client) < AT_MOST
                told = [line.recv(4096) for line in idle[-TOO_MANY:]]
                grown = gate.memory - before
            assert all(b" 503 " in answer and b"too_many_connections" in answer for answer in told)
            assert all(b"retry-after: 5" in answer for answer in told)
            assert client.get("/healthz").status_code == 200
        tell(capsys, f"{many:,} idle connections: {grown / 2**20:.0f} MiB more")
        assert grown < GROWTH
    finally:
        gate.end()


def test_ten_thousand_event_streams_are_refused_but_for_five_hundred(
    gate: GatewayProcess, fuzz_redis: RedisServer, many: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Redis.from_url(fuzz_redis.url) as redis, gate.client() as client:
        Hands(redis, Path()).serve(UNSERVED)  # seen, but it will draw nothing
        submitted = client.post("/v1/generations", json={"prompt": "a", "checkpoint": UNSERVED})
        path, before = f"/v1/generations/{submitted.json()['id']}", gate.memory
        asked = f"GET {path}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with ExitStack() as stack:
            streams: list[socket.socket] = []
            for _ in range(many - TOO_MANY):
                streams.append(stack.enter_context(gate.connect(20)))
                streams[-1].sendall(asked)
            told = Counter(line.recv(4096).split(b" ", 2)[1] for line in streams)
            assert answered_in(client) < AT_MOST
            grown = gate.memory - before
        assert client.post(f"{path}/cancel").status_code == 200
    tell(capsys, f"{many - TOO_MANY:,} event streams: {dict(told)}, {grown / 2**20:.0f} MiB more")
    most = min(STREAMS, many - TOO_MANY)
    assert (told[b"200"], told[b"429"]) == (most, many - TOO_MANY - most)
    assert grown < GROWTH


def test_who_sends_a_byte_now_and_then_keeps_nobody_waiting(
    gate: GatewayProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    head = b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    body = head + b"Content-Type: application/json\r\n\r\n" + b" " * 900
    before = gate.memory
    with (
        connected(gate, SLOW) as slow,
        gate.client() as client,
        selectors.DefaultSelector() as ended,
    ):
        for line in slow:
            ended.register(line, selectors.EVENT_READ)
        waits, place, left = [], 0, len(slow)
        deadline = time.monotonic() + 30
        while left and time.monotonic() < deadline:
            for number, line in enumerate(slow):
                trickle(line, (head if number % 2 else body)[place : place + 1])
            waits.append(answered_in(client))
            for key, _ in ended.select(0.1):
                assert b" 408 " in key.fileobj.recv(4096)  # type: ignore[union-attr]
                ended.unregister(key.fileobj)
                left -= 1
            place += 1
    median = statistics.median(waits)
    tell(capsys, f"{SLOW} slow ones; others: {median * 1000:.1f} ms, at most {max(waits):.2f} s")
    assert left == 0, f"{left} were waited for"
    assert median < MEDIAN
    assert gate.memory - before < GROWTH


def trickle(line: socket.socket, byte: bytes) -> None:
    with contextlib.suppress(OSError):  # it was hung up on
        line.send(byte, socket.MSG_NOSIGNAL)


def answered_in(client: object) -> float:
    began = time.perf_counter()
    assert client.get("/v1/samplers").status_code == 200  # type: ignore[attr-defined]
    return time.perf_counter() - began
