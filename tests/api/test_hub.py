"""The gateway's one subscription: what it says of an outage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
import redis.asyncio
from redis.exceptions import AuthenticationError

from server.broker import hub
from server.broker.hub import Hub
from tests.redis_server import RedisServer


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def test_a_redis_that_comes_back_and_refuses_us_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = Hub(redis.asyncio.Redis())
    for error in (ConnectionRefusedError("no"), AuthenticationError("who?"), OSError("no")):
        for _ in range(2):
            listener._lost(error)
    told = [record.getMessage().partition(",")[0] for record in caplog.records]
    assert told == ["Redis is away", "Redis refuses us", "Redis is away"]


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "RECONNECT_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "darkroom.hub")
    tries: list[Exception] = []
    lost = Hub._lost

    def counted(self: Hub, error: Exception) -> None:
        tries.append(error)
        lost(self, error)

    monkeypatch.setattr(Hub, "_lost", counted)
    server = RedisServer()
    server.start()

    async def act() -> None:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            listener = Hub(client)
            with listener.watch("gen_1") as changed:
                await listener.start()
                await asyncio.wait_for(changed.wait(), 30)  # it has subscribed
            for _ in range(2):
                server.kill()
                already = len(tries)
                await until(lambda most=already + 5: len(tries) >= most)
                with listener.watch("gen_1") as changed:
                    await asyncio.to_thread(server.start)
                    await asyncio.wait_for(changed.wait(), 30)
            await listener.stop()

    asyncio.run(act())
    server.close()
    told = [(record.levelname, record.getMessage()[:13]) for record in caplog.records]
    assert told == [("WARNING", "Redis is away"), ("INFO", "Redis is back")] * 2
