"""What a finished generation answers when it was kept for long enough, and afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from redis import Redis

from server.broker import Broker, keys
from tests.api.house import Hands
from tests.redis_server import RedisServer

HOURS = 7200


def finish(hands: Hands, id: str, *, ago: float) -> None:
    """As if it had ended so many seconds ago, and been kept for two hours from then."""
    hands.succeed(id)
    ended = time.time() - ago
    times: Any = {"finished_at": repr(ended), "expires_at": repr(ended + HOURS)}
    hands.redis.hset(keys.generation(id), mapping=times)
    hands.redis.zadd(keys.EXPIRING, {id: ended + HOURS})


def bury(server: RedisServer, id: str) -> None:
    """What the janitor of any gateway does."""

    async def act() -> None:
        broker = Broker(server.url, retention_seconds=HOURS)
        assert await broker.expiry.bury(id, time.time())
        await broker.close()

    asyncio.run(act())


READS = [
    ("GET", ""),
    ("GET", "/images/0"),
    ("GET", "/images/0/manifest"),
    ("GET", "/images/0/preview"),
    ("GET", "/events"),
    ("GET", "/webhook"),
    ("POST", "/webhook/redeliver"),
    ("POST", "/cancel"),
    ("DELETE", ""),
]


@pytest.mark.parametrize("buried", [False, True], ids=["in time", "cleaned up"])
def test_every_read_of_one_that_was_kept_for_long_enough_says_that_it_is_gone(
    client: httpx.Client,
    submit: Callable[..., str],
    hands: Hands,
    server: RedisServer,
    buried: bool,
) -> None:
    id = submit()
    finish(hands, id, ago=HOURS + 1)
    if buried:
        bury(server, id)
    for method, path in READS:
        answer = client.request(method, f"/v1/generations/{id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (410, "gone"), path
        assert answer.json()["detail"] == (
            f"{id} has expired: records and images are kept for 2 hours"
        )


def test_until_then_it_is_served(
    client: httpx.Client, submit: Callable[..., str], hands: Hands
) -> None:
    id = submit()
    finish(hands, id, ago=HOURS - 60)
    record = client.get(f"/v1/generations/{id}").json()
    finished, expires = (record[f"{what}_at"] for what in ("finished", "expires"))
    kept = datetime.fromisoformat(expires) - datetime.fromisoformat(finished)
    assert (record["status"], round(kept.total_seconds(), 2)) == ("succeeded", HOURS)
    assert client.get(f"/v1/generations/{id}/images/0").content == b"PNG"


def test_the_list_shows_none_that_are_over(
    client: httpx.Client, submit: Callable[..., str], hands: Hands, server: RedisServer
) -> None:
    over, buried, kept = submit(), submit(), submit()
    for id in (over, buried):
        finish(hands, id, ago=HOURS + 1)
    bury(server, buried)
    listed = client.get("/v1/generations").json()["generations"]
    assert [each["id"] for each in listed] == [kept]


def test_the_tombstone_goes_when_the_record_has_been_over_for_as_long_as_it_was_kept(
    client: httpx.Client,
    submit: Callable[..., str],
    hands: Hands,
    server: RedisServer,
    redis: Redis,
) -> None:
    id = submit()
    finish(hands, id, ago=HOURS + 1)
    redis.expire(keys.generation(id), HOURS - 1)  # as if it had been said then
    bury(server, id)
    assert HOURS - 10 < redis.ttl(keys.generation(id)) < HOURS  # type: ignore[operator]
    assert set(redis.hgetall(keys.generation(id))) == {b"owner", b"finished_at", b"expires_at"}  # type: ignore[arg-type]
    redis.delete(keys.generation(id))
    answer = client.get(f"/v1/generations/{id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_what_was_of_another_owner_is_not_found_though_it_is_over_or_deleted(
    client: httpx.Client,
    submit: Callable[..., str],
    hands: Hands,
    server: RedisServer,
    redis: Redis,
) -> None:
    over, buried, deleted = submit(), submit(), submit()
    for id in (over, buried):
        finish(hands, id, ago=HOURS + 1)
    bury(server, buried)
    hands.succeed(deleted)
    assert client.delete(f"/v1/generations/{deleted}").status_code == 204
    for id in (over, buried, deleted):
        assert client.get(f"/v1/generations/{id}").status_code == 410
        redis.hset(keys.generation(id), "owner", "somebody else")
        assert client.get(f"/v1/generations/{id}").status_code == 404


def test_what_ended_before_this_was_kept_is_served_until_redis_forgets_it(
    client: httpx.Client, submit: Callable[..., str], hands: Hands, redis: Redis
) -> None:
    id = submit()
    finish(hands, id, ago=HOURS + 1)
    redis.hdel(keys.generation(id), "expires_at")
    assert client.get(f"/v1/generations/{id}").status_code == 200
