"""Connections, bodies and streams that are slow, too large, or too many."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from server.api.arrival import ALL_BODIES, BodyLimit
from server.api.connections import MOST_HEAD, MOST_HEADERS
from server.errors import DarkroomError
from tests.api.house import Hands, wait_until

Start = Callable[..., httpx.Client]
HEAD = b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 80), 15)


def hear(line: socket.socket) -> bytes:
    """All until the connection ends."""
    return b"".join(iter(lambda: line.recv(65536), b""))


@pytest.fixture
def hasty(start: Start) -> httpx.Client:
    """Of a gateway that does not wait for long."""
    return start(slow_seconds=0.3)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/generations", "application/problem+json"),
        ("/v1/images/generations", "application/json"),
        ("/sdapi/v1/txt2img", "application/json"),
    ],
)
def test_a_body_that_stalls_is_given_up_in_the_words_of_its_door(
    hasty: httpx.Client, hands: Hands, path: str, kind: str
) -> None:
    with connect(hasty) as line:
        line.sendall(HEAD.replace(b"/v1/generations", path.encode()))
        line.sendall(b'Content-Length: 100\r\n\r\n{"prompt": "a')
        answer = hear(line)
    assert b" 408 " in answer.splitlines()[0]
    assert f"content-type: {kind}".encode() in answer
    assert b"the body came too slowly: 13 bytes came" in answer
    assert b'"code":"request_timeout"' in answer
    assert hands.queued() == 0


def test_a_form_that_stalls_is_given_up_too(hasty: httpx.Client) -> None:
    with connect(hasty) as line:
        line.sendall(b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n")
        line.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n3\r\n--x\r\n")
        assert b" 408 " in hear(line).splitlines()[0]


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"]
)
def test_a_head_that_never_ends_is_given_up(hasty: httpx.Client, begun: bytes) -> None:
    with connect(hasty) as line:
        line.sendall(begun)
        answer = hear(line)
    assert (b" 408 " in answer) == bool(begun), "who said nothing is told nothing"


def test_a_head_that_never_ends_after_another_request_is_given_up(hasty: httpx.Client) -> None:
    with connect(hasty) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea")
        answer = hear(line)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


def test_the_rest_of_a_body_that_nobody_reads_is_not_waited_for(hasty: httpx.Client) -> None:
    """uvicorn's own patience would begin anew with each byte."""
    with connect(hasty) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n12")
        assert line.recv(4096).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: is_reset(line))


def test_a_client_that_takes_nothing_of_its_answers_is_hung_up_on(hasty: httpx.Client) -> None:
    line = connect(hasty)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with line:
        line.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        wait_until(lambda: is_reset(line))


def is_reset(line: socket.socket) -> bool:
    try:
        line.send(b"\r\n", socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def test_a_client_that_waits_for_its_picture_is_waited_for(start: Start, hands: Hands) -> None:
    client = start(slow_seconds=0.2)
    answer = client.post(
        "/v1/generations", json={"prompt": "a"}, headers={"Prefer": "wait=1", "X-Long": "y" * 9000}
    )
    assert answer.status_code == 202


@pytest.mark.parametrize(
    "more",
    [b"H: " + b"x" * MOST_HEAD + b"\r\n", b"H: v\r\n" * (MOST_HEADERS + 1)],
    ids=["bytes", "headers"],
)
def test_a_head_that_is_too_large_is_431(client: httpx.Client, more: bytes) -> None:
    with connect(client) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + more)
        line.sendall(b"\r\n" if len(more) < 999 else b"")
        answer = line.recv(65536)
    assert b" 431 " in answer.splitlines()[0]
    assert b'"code":"head_too_large"' in answer


def test_one_that_comes_at_once_is_no_smaller(client: httpx.Client) -> None:
    answer = client.get("/healthz", headers={"H": "x" * MOST_HEAD})
    assert (answer.status_code, answer.json()["code"]) == (431, "head_too_large")


def test_what_is_no_http_is_refused_as_everything_else(client: httpx.Client) -> None:
    with connect(client) as line:
        line.sendall(b"HELO example.org\r\n\r\n")
        answer = hear(line)
    assert b" 400 " in answer.splitlines()[0]
    assert b"content-type: application/problem+json" in answer


def test_connections_beyond_the_most_are_refused_and_come_again(start: Start) -> None:
    client = start(max_connections=5)
    lines = [connect(client) for _ in range(5)]
    with connect(client) as extra:
        answer = hear(extra)
    assert b" 503 " in answer.splitlines()[0]
    assert b"retry-after: 5" in answer
    assert b'"code":"too_many_connections"' in answer
    for line in lines:
        line.close()
    wait_until(lambda: quiet(client))


def quiet(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def streaming(start: Start, hands: Hands) -> Iterator[Callable[[], httpx.Response]]:
    """Opens event streams at a gateway that has room for two."""
    client = start(max_streams=2)
    id = client.post("/v1/generations", json={"prompt": "a"}).json()["id"]
    opened: list[httpx.Response] = []
    pieces = []  # an iterator that is let go of closes its stream

    def open_one() -> httpx.Response:
        request = client.build_request("GET", f"/v1/generations/{id}/events")
        opened.append(client.send(request, stream=True))
        if opened[-1].status_code == 200:
            pieces.append(opened[-1].iter_raw())
            next(pieces[-1])  # it has begun
        return opened[-1]

    yield open_one
    for answer in opened:
        answer.close()


def test_streams_beyond_the_most_are_refused_until_one_ends(
    streaming: Callable[[], httpx.Response],
) -> None:
    first, second = streaming(), streaming()
    assert (first.status_code, second.status_code) == (200, 200)
    refused = streaming()
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "5"
    assert '"code":"too_many_streams"' in refused.read().decode()
    first.close()
    wait_until(lambda: streaming().status_code == 200)


def test_a_stream_at_the_openai_door_is_refused_before_anything_is_drawn(
    start: Start, hands: Hands
) -> None:
    client = start(max_streams=1)
    id = client.post("/v1/generations", json={"prompt": "a"}).json()["id"]
    with client.stream("GET", f"/v1/generations/{id}/events") as stream:
        pieces = stream.iter_raw()  # let go of, it would close the stream
        next(pieces)
        answer = client.post("/v1/images/generations", json={"prompt": "a", "stream": True})
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "too_many_streams"
    assert hands.queued() == 1


class Reader:
    """An application that reads bodies, and how that went."""

    def __init__(self) -> None:
        self.went: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
        except DarkroomError as error:
            self.went.append(error.code)
        else:
            self.went.append("whole")


def body_in(*parts: Any) -> Receive:
    """Parts of a body: bytes that come, or numbers of seconds in which nothing does."""
    left = list(parts)

    async def receive() -> Message:
        while not isinstance(left[0], bytes):
            await asyncio.sleep(left.pop(0))
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    return receive


def scope_of(*headers: tuple[bytes, bytes]) -> Scope:
    return {
        "type": "http",
        "path": "/",
        "headers": headers or ((b"transfer-encoding", b"chunked"),),
    }


async def no_send(_: Message) -> None:
    raise AssertionError("nothing is answered here")


def test_a_body_that_comes_steadily_may_take_longer() -> None:
    reader = Reader()
    limit = BodyLimit(reader, 10**9, slow_seconds=0.2)
    steady = body_in(*[part for _ in range(4) for part in (bytes(2**14), 0.1)], b"")
    asyncio.run(limit(scope_of(), steady, no_send))
    asyncio.run(limit(scope_of(), body_in(b"a", 0.1, b"b", 0.15, b""), no_send))
    assert reader.went == ["whole", "request_timeout"]


def test_bodies_on_their_way_are_bounded_all_together() -> None:
    reader = Reader()
    limit = BodyLimit(reader, 100, slow_seconds=5.0)

    async def crowd() -> None:
        slow = [
            asyncio.create_task(limit(scope_of(), body_in(bytes(90), 0.2, b""), no_send))
            for _ in range(ALL_BODIES + 4)
        ]
        await asyncio.gather(*slow)

    asyncio.run(crowd())
    assert reader.went.count("unavailable") == ALL_BODIES + 4 - ALL_BODIES * 100 // 90
    assert limit.held == 0
    asyncio.run(limit(scope_of(), body_in(bytes(90), b""), no_send))
    assert reader.went[-1] == "whole"


LIMITED = """
import resource
from server.gateway import room_for
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 700))
print(room_for(100), room_for(10_000), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_as_many_connections_are_held_as_the_system_lets_the_process_have() -> None:
    command = [sys.executable, "-c", LIMITED]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["100", "200", "700", "700"]
    assert "at most 200 connections" in told.stderr
