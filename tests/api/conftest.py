from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.api.house import Hands, gateway
from tests.api.pictures import CARDS
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


@pytest.fixture(scope="module")
def shared_atelier(
    server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, Path]]:
    folder = tmp_path_factory.mktemp("atelier")
    (folder / "cards.toml").write_text(CARDS)
    with gateway(server.url, folder, catalog=folder / "cards.toml") as client:
        yield client, folder


@pytest.fixture
def painter(shared_atelier: tuple[httpx.Client, Path], redis: Redis) -> Hands:
    """A worker of each checkpoint of the atelier, over an image store that is empty."""
    painter = Hands(redis, shared_atelier[1])
    shutil.rmtree(painter.images, ignore_errors=True)
    for checkpoint in ("any", "painter", "x4", "xl", "xl-refiner", "demo"):
        painter.serve(checkpoint, name=f"painter of {checkpoint}")
    return painter


@pytest.fixture
def atelier(shared_atelier: tuple[httpx.Client, Path], painter: Hands) -> httpx.Client:
    """Of a gateway whose checkpoints offer every task."""
    return shared_atelier[0]


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
