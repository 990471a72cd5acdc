"""Redis away: an honest 503 soon, and work again as soon as it is back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.api.house import Hands, gateway, soon, wait_until
from tests.api.pictures import CARDS, body, picture
from tests.redis_server import RedisServer

BODY = {"prompt": "x"}


@pytest.fixture
def mortal() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


def test_without_redis_it_is_503_and_with_it_it_works_again(
    mortal: RedisServer, tmp_path: Path
) -> None:
    with gateway(mortal.url, tmp_path) as client:
        with Redis.from_url(mortal.url) as redis:
            Hands(redis, tmp_path).serve()
        id = client.post("/v1/generations", json=BODY).json()["id"]
        mortal.kill()
        began = time.monotonic()
        answer = client.post("/v1/generations", json=BODY)
        assert time.monotonic() - began < 2
        assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
        assert answer.headers["retry-after"] == "2"
        assert client.get("/healthz").status_code == 200
        told = client.get("/metrics")
        assert told.status_code == 200
        assert "darkroom_redis_memory_bytes{" not in told.text
        assert client.get("/readyz").json()["ready"] is False
        served = [c["served"] for c in client.get("/v1/capabilities").json()["checkpoints"]]
        assert set(served) == {None}
        mortal.start()
        wait_until(lambda: client.get(f"/v1/generations/{id}").status_code == 200)
        with Redis.from_url(mortal.url) as redis:
            hands = Hands(redis, tmp_path)
            hands.serve()
            wait_until(lambda: redis.pubsub_numsub("darkroom:changes")[0][1] == 1)
            hands.succeed(id)
        answer = client.get(f"/v1/generations/{id}/events")
        assert "succeeded" in answer.text


def test_an_outage_while_waiting_is_no_refusal(mortal: RedisServer, tmp_path: Path) -> None:
    with gateway(mortal.url, tmp_path) as client:
        with Redis.from_url(mortal.url) as redis:
            Hands(redis, tmp_path).serve()
        with soon(mortal.kill):
            answer = client.post("/v1/generations", json=BODY, headers={"Prefer": "wait=5"})
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")


def test_a_redis_that_hangs_is_503_within_two_seconds(mortal: RedisServer, tmp_path: Path) -> None:
    with gateway(mortal.url, tmp_path) as client, Redis.from_url(mortal.url) as redis:
        Hands(redis, tmp_path).serve()
        assert client.post("/v1/generations", json=BODY).status_code == 202
        pid = int(redis.info("server")["process_id"])  # type: ignore[index]
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            answer = client.post("/v1/generations", json=BODY)
            assert time.monotonic() - began < 2
            assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: client.post("/v1/generations", json=BODY).status_code == 202)


def test_a_redis_that_is_full_can_be_read_and_made_room_in(
    mortal: RedisServer, tmp_path: Path
) -> None:
    with gateway(mortal.url, tmp_path) as client, Redis.from_url(mortal.url) as redis:
        hands = Hands(redis, tmp_path)
        hands.serve()
        done, queued = (client.post("/v1/generations", json=BODY).json()["id"] for _ in range(2))
        hands.succeed(done)
        assert client.get("/readyz").status_code == 200
        redis.config_set("maxmemory", 1)
        answer = client.post("/v1/generations", json=BODY)
        assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["the queue cannot be reached, or refuses writes"]
        assert 'darkroom_queue_depth{checkpoint="demo"} 2.0' in client.get("/metrics").text
        assert client.get(f"/v1/generations/{queued}").json()["status"] == "queued"
        assert client.delete(f"/v1/generations/{done}").status_code == 204
        assert client.get(f"/v1/generations/{done}").status_code == 410
        assert (tmp_path / "images" / done).exists() is False
        redis.config_set("maxmemory", 0)
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/generations", json=BODY).status_code == 202


def test_what_may_have_been_accepted_keeps_its_pictures(
    mortal: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "cards.toml").write_text(CARDS)
    with gateway(mortal.url, tmp_path, catalog=tmp_path / "cards.toml") as client:
        with Redis.from_url(mortal.url) as redis:
            hands = Hands(redis, tmp_path)
            hands.serve("any")
            asked = body(task="image-to-image", image=picture())
            client.post("/v1/generations", json=asked)  # it knows now how things stand
        mortal.kill()
        answer = client.post("/v1/generations", json=asked)
        assert answer.json()["code"] == "broker_unavailable"
        assert hands.kept() == ["input-image.png"] * 2


def test_a_gateway_starts_before_its_redis(tmp_path: Path) -> None:
    with gateway(f"unix://{tmp_path}/none.sock", tmp_path) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
