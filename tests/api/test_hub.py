"""The gateway's one subscription: what it says of an outage."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

import pytest
import redis.asyncio
from redis.exceptions import AuthenticationError

from server.broker import hub, keys
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


def test_a_redis_that_hangs_is_given_up_and_found_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("PING_SECONDS", 0.05), ("SILENT_SECONDS", 0.5)):
        monkeypatch.setattr(hub, name, seconds)
    caplog.set_level(logging.INFO, "darkroom.hub")
    server = RedisServer()
    server.start()

    async def act() -> None:
        client = redis.asyncio.Redis.from_url(server.url, socket_connect_timeout=0.2)
        async with client:
            listener = Hub(client)
            with listener.watch("gen_1") as changed:
                await listener.start()
                await asyncio.wait_for(changed.wait(), 30)
                server.send(signal.SIGSTOP)
                await until(lambda: "Redis is away" in caplog.text)
                changed.clear()
                server.send(signal.SIGCONT)
                await asyncio.wait_for(changed.wait(), 30)
            await until(lambda: "Redis is back" in caplog.text)
            with listener.watch("gen_1") as changed:
                await client.publish(keys.CHANGES, "gen_1 done")
                await asyncio.wait_for(changed.wait(), 30)
            await listener.stop()

    try:
        asyncio.run(act())
    finally:
        server.send(signal.SIGCONT)
        server.close()


def test_one_that_answers_is_not_given_up_for_want_of_news(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("PING_SECONDS", 0.02), ("SILENT_SECONDS", 2.0)):
        monkeypatch.setattr(hub, name, seconds)
    server = RedisServer()
    server.start()

    async def act() -> None:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            listener = Hub(client)
            await listener.start()
            async with asyncio.timeout(30):
                while (await client.info("commandstats")).get("cmdstat_ping", {"calls": 0})[
                    "calls"
                ] < 120:  # which takes longer than it would be silent
                    await asyncio.sleep(0.05)
            await listener.stop()

    asyncio.run(act())
    server.close()
    assert caplog.records == []


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
