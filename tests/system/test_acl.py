"""The Redis users of docs/operations.md: with them everything works, and nothing else does."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from server.broker import accounts
from server.config import Settings
from tests.api.house import bearer, gateway, wait_until
from tests.fuzz.worker import simulated
from tests.redis_server import RedisServer

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SECRET = "not-a-secret"
DANGEROUS = (
    "FLUSHALL",
    "CONFIG GET dir",
    "KEYS *",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "MODULE LIST",
    "ACL LIST",
    "SLAVEOF NO ONE",
    "MONITOR",
    "CLIENT KILL TYPE normal",
    "SET foreign 1",
    "GET foreign",
)


def users() -> list[str]:
    """The ACL rules of the page, with a password."""
    rules = re.findall(r"^user \S+ .*$", PAGE.read_text(), re.MULTILINE)
    assert len(rules) == 2
    return [rule.replace(">…", f">{SECRET}") for rule in rules]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    with Redis.from_url(server.url) as redis:
        for rule in users():
            redis.execute_command("ACL SETUSER", *rule.split()[1:])
    yield server
    server.close()


def url(server: RedisServer, user: str) -> str:
    return f"unix://{user}:{SECRET}@{server.socket}"


@pytest.fixture
def client(server: RedisServer, tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a gateway, with a worker, each as the user that the page gives it."""
    settings = Settings(redis=url(server, "worker"), data_dir=tmp_path, lease_seconds=0.9)
    worker = simulated(settings, "demo")
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        with gateway(url(server, "gateway"), tmp_path) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            yield client
    finally:
        worker.request_stop()
        thread.join(20)


def test_gateways_and_workers_can_do_all_they_do(client: httpx.Client, server: RedisServer) -> None:
    body = {"prompt": "a red circle", "num_inference_steps": 3}
    waiting = {"Prefer": "wait=5", "Idempotency-Key": "one"}
    for _ in range(2):
        record = client.post("/v1/generations", json=body, headers=waiting).json()
    assert record["status"] == "succeeded"
    assert "event: done" in client.get(record["urls"]["events"]).text
    assert client.get("/v1/generations").json()["generations"]
    slow = client.post("/v1/generations", json=body | {"num_inference_steps": 150}).json()
    client.post(slow["urls"]["cancel"])
    assert client.delete(record["urls"]["self"]).status_code == 204
    for path in ("/v1/queue", "/v1/usage", "/v1/capabilities", "/sdapi/v1/progress"):
        assert client.get(path).status_code == 200
    client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 1})
    drawn = client.post("/sdapi/v1/txt2img", json={"prompt": "x", "steps": 2})
    assert drawn.status_code == 200
    with Redis.from_url(url(server, "gateway")) as redis:
        account, key, _ = accounts.create(
            redis, "shop", scopes=(accounts.Scope.GENERATE,), requests_per_minute=10
        )
    wait_until(lambda: client.get("/v1/queue").status_code == 401)
    made = client.post("/v1/generations", json=body, headers=bearer(key) | waiting)
    assert made.json()["status"] == "succeeded"
    with Redis.from_url(url(server, "gateway")) as redis:
        accounts.revoke(redis, account.id)
    with Redis.from_url(server.url) as admin:
        denied: Any = admin.execute_command("ACL LOG")
    told = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in denied]
    # What clients say of themselves is no loss; before 7.2 it cannot even be allowed.
    assert [entry for entry in told if not entry[b"object"].startswith(b"client")] == []


@pytest.mark.parametrize("user", ["gateway", "worker"])
def test_they_can_do_nothing_dangerous_and_reach_no_foreign_key(
    server: RedisServer, user: str
) -> None:
    with Redis.from_url(url(server, user)) as redis:
        assert redis.ping()
        for command in DANGEROUS:
            with pytest.raises(NoPermissionError):
                redis.execute_command(*command.split())
