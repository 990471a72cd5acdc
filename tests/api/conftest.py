from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.api.house import Hands, gateway
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def shared_client(server: RedisServer, folder: Path) -> Iterator[httpx.Client]:
    with gateway(server.url, folder) as client:
        yield client


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def hands(redis: Redis, folder: Path) -> Hands:
    """A worker of the demo checkpoint, seen just now."""
    hands = Hands(redis, folder)
    hands.serve()
    return hands


@pytest.fixture
def client(shared_client: httpx.Client, hands: Hands) -> httpx.Client:
    """Of a gateway over an empty Redis with one worker."""
    return shared_client


@pytest.fixture
def start(server: RedisServer, folder: Path, hands: Hands) -> Iterator[Callable[..., httpx.Client]]:
    """Starts a gateway of the test's own, with settings of its own."""
    with ExitStack() as stack:

        def start(**settings: Any) -> httpx.Client:
            return stack.enter_context(gateway(server.url, folder, **settings))

        yield start


@pytest.fixture
def submit(client: httpx.Client) -> Callable[..., str]:
    """Submits a generation and returns its id."""

    def submit(**fields: Any) -> str:
        answer = client.post("/v1/generations", json={"prompt": "a red circle"} | fields)
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["id"]
        return id

    return submit
