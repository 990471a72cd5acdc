"""The gateway's side port: machines that look after it need no key there, and nobody else has
anything there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from pydantic import ValidationError
from redis import Redis

from server.api.connections import MOST_ASIDE
from server.config import Settings
from server.listener import listen
from tests.api.house import Hands, bearer, gateway, key_of, wait_until
from tests.redis_server import RedisServer


class Ports(NamedTuple):
    """Two clients of one gateway."""

    front: httpx.Client
    side: httpx.Client


def a_free_port() -> int:
    with closing(listen("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def shared_ports(server: RedisServer, folder: Path) -> Iterator[Ports]:
    port = a_free_port()
    with (
        gateway(server.url, folder, metrics_port=port) as front,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as side,
    ):
        yield Ports(front, side)


@pytest.fixture
def ports(shared_ports: Ports, hands: Hands, redis: Redis) -> Ports:
    """Of a gateway that wants keys, over a Redis with one worker."""
    key_of(redis)
    wait_until(lambda: shared_ports.front.get("/v1/queue").status_code == 401)
    return shared_ports


def test_metrics_need_no_key_at_the_side_port(ports: Ports) -> None:
    assert ports.front.get("/metrics").status_code == 401
    answer = ports.side.get("/metrics")
    assert answer.status_code == 200
    assert 'darkroom_workers{checkpoint="demo",state="ready"} 1.0' in answer.text


def test_probes_answer_at_both_ports(ports: Ports) -> None:
    for client in ports:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json()["ready"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/queue"),
        ("POST", "/v1/generations"),
        ("GET", "/v1/usage/accounts"),
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "//metrics"),
        ("GET", "/metrics/../v1/queue"),
        ("GET", "/sdapi/v1/samplers"),
        ("POST", "/v1/images/generations"),
    ],
)
def test_nothing_else_is_at_the_side_port_even_with_a_key(
    ports: Ports, redis: Redis, method: str, path: str
) -> None:
    key = key_of(redis, scopes=("admin",))
    answer = ports.side.request(method, path, headers=bearer(key), json={"prompt": "x"})
    assert answer.status_code == 404
    assert "/metrics, /healthz and /readyz" in answer.text


def test_the_front_is_not_taken_for_the_side_port_by_what_a_request_says(ports: Ports) -> None:
    host = {"Host": ports.side.base_url.netloc.decode(), "X-Forwarded-Port": "1"}
    assert ports.front.get("/metrics", headers=host).status_code == 401


def test_a_crowd_at_the_front_keeps_no_probe_out(
    server: RedisServer, folder: Path, hands: Hands
) -> None:
    port = a_free_port()
    with gateway(server.url, folder, metrics_port=port, max_connections=1) as front:
        assert front.get("/healthz").status_code == 200  # and its connection is kept
        assert httpx.get(f"{front.base_url}/healthz").status_code == 503
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_a_crowd_at_the_side_port_keeps_nobody_out(
    server: RedisServer, folder: Path, hands: Hands
) -> None:
    port = a_free_port()
    with (
        gateway(server.url, folder, metrics_port=port, max_connections=2) as front,
        ExitStack() as crowd,
    ):
        held = [
            crowd.enter_context(socket.create_connection(("127.0.0.1", port)))
            for _ in range(2 * MOST_ASIDE)
        ]
        held[0].settimeout(10)
        assert held[0].recv(1) == b"", "who came first makes room"
        assert front.get("/healthz").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_only_reads_are_answered_there(ports: Ports) -> None:
    assert ports.side.post("/metrics").status_code == 405


def test_the_queue_is_told_in_generations_and_in_seconds(
    ports: Ports, redis: Redis, submit_with: Callable[[str], str]
) -> None:
    key = key_of(redis)
    assert told(ports.side, "darkroom_queue_oldest_seconds") == 0.0
    for _ in range(3):
        submit_with(key)
    assert told(ports.side, "darkroom_queue_depth") == 3.0
    assert told(ports.side, "darkroom_queued_work_seconds") == pytest.approx(3 * 2.0)
    first = told(ports.side, "darkroom_queue_oldest_seconds")
    assert 0 < first <= told(ports.side, "darkroom_queue_oldest_seconds")


def test_a_round_trip_to_redis_is_measured_by_each_scrape(ports: Ports) -> None:
    before = told(ports.side, "darkroom_redis_seconds_count", "")
    assert told(ports.side, "darkroom_redis_seconds_count", "") == before + 1


def test_the_memory_of_redis_is_told_with_its_bound_where_it_has_one(
    ports: Ports, redis: Redis
) -> None:
    name, used, most = "darkroom_redis_memory_bytes", '{kind="used"}', '{kind="max"}'
    assert 100_000 < told(ports.side, name, used) < 100_000_000
    assert f"{name}{most}" not in ports.side.get("/metrics").text
    before = told(ports.side, name, used)
    redis.set("filler", "x" * 1_000_000)
    redis.config_set("maxmemory", "256mb")
    try:
        assert told(ports.side, name, most) == 256 * 2**20
        assert told(ports.side, name, used) >= before + 900_000
    finally:
        redis.config_set("maxmemory", 0)
    assert f"{name}{most}" not in ports.side.get("/metrics").text


def test_who_may_not_ask_for_the_memory_of_redis_tells_the_rest(
    server: RedisServer, folder: Path, redis: Redis, hands: Hands
) -> None:
    redis.acl_setuser(
        "terse",
        enabled=True,
        nopass=True,
        keys=["*"],
        channels=["*"],
        commands=["+@all", "-info"],
    )
    url = f"unix://terse:any@{server.socket}"
    try:
        with gateway(url, folder) as client:
            page = client.get("/metrics").text
    finally:
        redis.acl_deluser("terse")
    assert "darkroom_redis_memory_bytes{" not in page
    assert 'darkroom_queue_depth{checkpoint="demo"} 0.0' in page


def test_the_side_port_is_never_the_front() -> None:
    with pytest.raises(ValidationError, match="another than port"):
        Settings(port=9100, metrics_port=9100)


@pytest.fixture
def submit_with(ports: Ports) -> Callable[[str], str]:
    """Submits a generation with a key, and returns its id."""

    def submit(key: str) -> str:
        answer = ports.front.post(
            "/v1/generations", json={"prompt": "a red circle"}, headers=bearer(key)
        )
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["id"]
        return id

    return submit


def told(client: httpx.Client, name: str, labels: str = '{checkpoint="demo"}') -> float:
    """What a scrape says of this."""
    [value] = [
        line.rpartition(" ")[2]
        for line in client.get("/metrics").text.splitlines()
        if line.startswith(f"{name}{labels} ")
    ]
    return float(value)
