"""Requests that come again, and clients that leave: what the synchronous doors ask of the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from server.broker import Broker, Generation, Idempotency, Repeats
from server.errors import NoWorker
from server.spec import GenerationState
from tests.api.house import RETENTION, Hands
from tests.builders import a_spec
from tests.redis_server import RedisServer

Run = Callable[[Callable[[Broker], Awaitable[Any]]], Any]

FIRST = Idempotency("key", "body", Repeats.NOTHING, 900)
AGAIN = Idempotency("key", "body", Repeats.LIVING, 900)


@pytest.fixture
def run(server: RedisServer, hands: Hands) -> Run:
    """Runs what a test does with a broker."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Broker]:
        broker = Broker(server.url, retention_seconds=RETENTION)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.close()

    def run(act: Callable[[Broker], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            async with opened() as broker:
                return await act(broker)

        return asyncio.run(whole())

    return run


def submit(run: Run, idempotency: Idempotency) -> tuple[Generation, bool]:
    return run(lambda broker: broker.submit(a_spec(), owner="local", idempotency=idempotency))


def test_a_retry_joins_what_its_first_try_is_having_drawn(run: Run, hands: Hands) -> None:
    first, made = submit(run, FIRST)
    joined, made_again = submit(run, AGAIN)
    assert (made, made_again, joined.id) == (True, False, first.id)
    hands.succeed(first.id)
    assert submit(run, AGAIN)[0].id == first.id, "what it made is still its answer"


def test_the_same_request_that_is_no_retry_is_drawn_anew(run: Run) -> None:
    ids = {submit(run, FIRST)[0].id for _ in range(3)}
    assert len(ids) == 3
    assert submit(run, AGAIN)[0].id in ids


@pytest.mark.parametrize("state", ["failed", "canceled", "expired"])
def test_a_retry_of_what_has_no_picture_is_drawn_anew(run: Run, hands: Hands, state: str) -> None:
    first, _ = submit(run, FIRST)
    hands.end(first.id, GenerationState(state), state, "it ended")
    again, made = submit(run, AGAIN)
    assert made
    assert again.id != first.id


def test_a_retry_of_what_is_about_to_be_canceled_is_drawn_anew(run: Run, hands: Hands) -> None:
    first, _ = submit(run, FIRST)
    hands.begin(first.id)
    run(lambda broker: broker.cancel(first.id, owner="local"))
    again, made = submit(run, AGAIN)
    assert made
    assert again.id != first.id


def test_a_retry_of_what_was_refused_joins_nothing_older(
    run: Run, hands: Hands, redis: Redis
) -> None:
    older, _ = submit(run, FIRST)
    redis.delete("darkroom:served:demo")
    with pytest.raises(NoWorker):
        submit(run, FIRST)
    hands.serve()
    again, made = submit(run, AGAIN)
    assert made
    assert again.id != older.id


def test_a_retry_long_after_joins_nothing(run: Run, redis: Redis) -> None:
    submit(run, FIRST)
    (key,) = redis.keys("darkroom:idempotency:*")  # type: ignore[misc]
    assert 0 < redis.ttl(key) <= 900  # type: ignore[operator]


def test_who_waits_is_known_until_they_leave_or_cannot_be_there_any_more(run: Run) -> None:
    async def act(broker: Broker) -> list[bool]:
        await broker.attend("gen_1", "a", seconds=60)
        await broker.attend("gen_1", "b", seconds=0)  # of a gateway that was killed
        seen = [await broker.attended("gen_1")]
        await broker.leave("gen_1", "a")
        return [*seen, await broker.attended("gen_1"), await broker.attended("gen_2")]

    assert run(act) == [True, False, False]
