from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.api.pictures import CARDS
from tests.fuzz.house import GatewayProcess, WorkerProcess, wait_until
from tests.redis_server import RedisServer

CHECKPOINTS = ("demo", "any", "painter", "x4", "xl", "xl-refiner")
SECRET = "whsec_" + "A" * 32


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They share one gateway, so they share one process of pytest-xdist."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("fuzz"))


@pytest.fixture(scope="session")
def fuzz_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(autouse=True, scope="module")
def forgotten(fuzz_redis: RedisServer) -> Iterator[None]:
    """A1111's door keeps what its caller has set: no module meets the settings of another."""
    yield
    with Redis.from_url(fuzz_redis.url) as redis:
        for key in redis.scan_iter("darkroom:settings:*"):
            redis.delete(key)


@pytest.fixture(scope="session")
def gate(
    fuzz_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway in a process of its own, in front of workers that draw anything at once."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "cards.toml").write_text(CARDS)
    gate = GatewayProcess(
        fuzz_redis.url,
        folder,
        catalog=folder / "cards.toml",
        models_dir=shelves(folder),
        webhook_secret=SECRET,
        abandoned_seconds=0.2,
        slow_seconds=2.0,
    )
    workers = WorkerProcess(fuzz_redis.url, folder, *CHECKPOINTS)
    with gate.client() as client:
        wait_until(lambda: all_ready(client.get("/readyz").json()["checkpoints"]), 60)
    yield gate
    assert workers.alive, workers.said
    workers.end()
    assert gate.alive, gate.said
    gate.end()
    assert "an unexpected error" not in gate.said, gate.said


def shelves(folder: Path) -> Path:
    """A folder of models in which some links lead out of it."""
    outside = folder / "outside.safetensors"
    outside.touch()
    for shelf in ("Lora", "VAE"):
        (folder / "models" / shelf).mkdir(parents=True)
        (folder / "models" / shelf / "ink.safetensors").touch()
        (folder / "models" / shelf / "link.safetensors").symlink_to(outside)
    return folder / "models"


def all_ready(served: dict[str, dict[str, int]]) -> bool:
    return set(CHECKPOINTS) <= set(served)
