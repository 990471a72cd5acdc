"""Every request of the generator: an answer in words or the end of the connection, and nothing
else."""

from __future__ import annotations

import contextlib
import re
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.fuzz.house import GatewayProcess, tell
from tests.fuzz.requests import hostile
from tests.fuzz.said import EVIL, Said

LEAST = 100
AT_MOST = 5.0
"""Seconds of a single answer on a machine that has much else to do."""
PATIENCE = 20.0
"""And where the gateway has to wait for what never comes."""
MEDIAN = 0.25
GROWTH = 200 * 2**20
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
ACCEPTED = re.compile(r"^darkroom_generations_accepted_total{.*} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Told:
    """What came back, if anything."""

    said: Said
    answer: bytes
    seconds: float

    @property
    def status(self) -> int:
        """0: the connection was closed without a word."""
        found = STATUS.match(self.answer)
        return int(found[1]) if found else 0

    def __str__(self) -> str:
        return f"{self.said.name}: {self.status} in {self.seconds:.2f} s, {self.answer[-300:]!r}"


@pytest.fixture(scope="module")
def id(gate: GatewayProcess) -> str:
    """Of a generation that there is."""
    with gate.client(headers={"Prefer": "wait=5"}) as client:
        answer = client.post("/v1/generations", json={"prompt": "a boat"})
    found: str = answer.json()["id"]
    return found


@pytest.fixture(scope="module")
def requests(id: str) -> list[Said]:
    return list(hostile(id))


def test_there_are_enough_of_them(requests: list[Said]) -> None:
    assert len(requests) >= LEAST
    assert len({each.name for each in requests}) == len(requests)


def test_each_is_refused_in_words_or_hung_up_on(
    gate: GatewayProcess, requests: list[Said], capsys: pytest.CaptureFixture[str]
) -> None:
    memory, accepted = gate.memory, accepted_by(gate)
    told = [speak(gate, each) for each in requests if not each.unfinished]
    most = gate.memory
    wrong = [each for each in told if not well_answered(each)]
    assert not wrong, "\n".join(map(str, wrong))
    drawn = sum(each.status == 200 and each.said.data.startswith(b"POST") for each in told)
    assert accepted_by(gate) - accepted == drawn, "something that was refused was queued"
    slowest = max(told, key=lambda each: each.seconds)
    grown = f"the gateway from {memory / 2**20:.0f} to {most / 2**20:.0f} MiB"
    what = f"{slowest.said.name}, {slowest.seconds:.2f} s"
    tell(capsys, f"{len(told)} requests, {grown}; slowest: {what}")
    assert slowest.seconds < AT_MOST, slowest
    assert statistics.median(each.seconds for each in told) < MEDIAN
    assert most - memory < GROWTH


def test_what_never_ends_is_given_up(gate: GatewayProcess, requests: list[Said]) -> None:
    unfinished = [each for each in requests if each.unfinished]
    with ThreadPoolExecutor(len(unfinished)) as threads:
        told = list(threads.map(lambda each: speak(gate, each), unfinished))
    wrong = [each for each in told if each.status != 408 or b"request_timeout" not in each.answer]
    assert not wrong, "\n".join(map(str, wrong))


def well_answered(told: Told) -> bool:
    """In words, if in any; harmless ones also like everybody else's."""
    if told.status == 0:
        return True
    if EVIL.encode() in told.answer and told.status < 300:
        return False
    if told.said.harmless and told.status < 400:
        return True
    return 400 <= told.status < 500 and len(told.answer) < 8000


def accepted_by(gate: GatewayProcess) -> float:
    with gate.client() as client:
        return sum(map(float, ACCEPTED.findall(client.get("/metrics").text)))


def speak(gate: GatewayProcess, said: Said) -> Told:
    """All that comes back until the end of the first answer, or of the connection."""
    began = time.perf_counter()
    with gate.connect(PATIENCE) as line:
        with contextlib.suppress(OSError):  # it hung up on us in the middle
            line.sendall(said.data)
        answer = b"".join(heard(line))
    return Told(said, answer, time.perf_counter() - began)


def heard(line: socket.socket) -> Iterator[bytes]:
    """Pieces of one answer."""
    whole = b""
    while not complete(whole):
        try:
            piece = line.recv(65536)
        except ConnectionError:
            return
        if not piece:
            return
        whole += piece
        yield piece


def complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    if not end:
        return False
    if length is None:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(length[1])
