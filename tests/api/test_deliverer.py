"""The deliverer by itself, with a clock of its own: retries, leases, rebinding, outages."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from server.api.webhooks import deliverer as module
from server.api.webhooks.deliverer import RETRY_SECONDS, Deliverer
from server.api.webhooks.guard import Guard
from server.api.webhooks.messenger import Messenger
from server.broker import Broker, Delivery, DeliveryState, Webhook
from server.broker.deliveries import LEASE_SECONDS
from server.metrics import GatewayMetrics
from server.spec import GenerationState
from tests.api.house import RETENTION, Hands
from tests.api.receiver import SECRET, Receiver, receiving
from tests.builders import a_spec
from tests.redis_server import RedisServer

LOOPBACK = "127.0.0.0/8"
FAR = "Mon, 01 Jan 2029 00:00:00 +99999999999999999999"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class Clock:
    """Runs only when it is told to."""

    def __init__(self) -> None:
        self.now = time.time() + 1

    def __call__(self) -> float:
        return self.now


class Desk:
    """A gateway's deliverer, which looks when it is told to."""

    def __init__(self, broker: Broker, guard: Guard | None = None) -> None:
        self.broker = broker
        self.clock = Clock()
        self.guard = guard or Guard(LOOPBACK)
        self.deliverer = self.another()

    def another(self) -> Deliverer:
        """Another gateway's, by the same clock."""
        metrics = GatewayMetrics(CollectorRegistry())
        return Deliverer(self.broker, Messenger(SECRET, self.guard), metrics, clock=self.clock)

    async def submit(self, url: str, **fields: Any) -> str:
        webhook = Webhook(url=url, **fields)
        generation, _ = await self.broker.submit(a_spec(), owner="local", webhook=webhook)
        return generation.id

    async def after(self, seconds: float = 0) -> None:
        """Look when so much time has passed, and finish what that began."""
        self.clock.now += seconds
        await self.deliverer.look()
        await self.deliverer.settled()

    async def log(self, id: str) -> Delivery:
        return await self.broker.deliveries.read(id)


Act = Callable[[Desk], Awaitable[Any]]
Run = Callable[..., Any]


@pytest.fixture
def run(server: RedisServer, hands: Hands) -> Run:
    """Runs what a test does at a desk."""

    def run(act: Act, guard: Guard | None = None) -> Any:
        async def whole() -> Any:
            broker = Broker(server.url, retention_seconds=RETENTION)
            try:
                return await act(Desk(broker, guard))
            finally:
                await broker.close()

        return asyncio.run(whole())

    return run


def test_what_is_refused_is_tried_again_until_it_is_taken(
    run: Run, hands: Hands, receiver: Receiver
) -> None:
    receiver.answer(500, 503)

    async def act(desk: Desk) -> None:
        id = await desk.submit(receiver.url)
        await desk.after()
        assert receiver.got == [], "it has not ended"
        hands.succeed(id)
        await desk.after()
        log = await desk.log(id)
        assert (log.state, [a.status for a in log.attempts]) == (DeliveryState.PENDING, [500])
        assert 5 <= (log.due_at or 0) - desk.clock.now <= 5.5
        await desk.after(4.9)
        assert len(receiver.got) == 1, "it is not yet due again"
        await desk.after(0.7)
        assert len(receiver.got) == 2
        await desk.after(299)
        assert len(receiver.got) == 2
        await desk.after(32)
        log = await desk.log(id)
        assert (log.state, log.due_at) == (DeliveryState.DELIVERED, None)
        assert [a.status for a in log.attempts] == [500, 503, 204]
        await desk.after(1e6)

    run(act)
    assert len(receiver.got) == 3
    assert len(set(receiver.ids)) == 1, "each try is the same message"
    assert receiver.verified(0) == receiver.verified(2)


def test_after_the_last_try_it_has_failed(run: Run, hands: Hands, receiver: Receiver) -> None:
    receiver.answer(*[500] * 20)

    async def act(desk: Desk) -> Delivery:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        for seconds in (0, *RETRY_SECONDS):
            await desk.after(1.2 * seconds)
        await desk.after(1e6)
        return await desk.log(id)

    log = run(act)
    assert (log.state, log.due_at) == (DeliveryState.FAILED, None)
    assert len(log.attempts) == len(receiver.got) == 1 + len(RETRY_SECONDS)


def test_delivered_again_it_has_all_its_tries_again(
    run: Run, hands: Hands, receiver: Receiver
) -> None:
    receiver.answer(410, 500)

    async def act(desk: Desk) -> Delivery:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        await desk.after()
        assert (await desk.log(id)).state is DeliveryState.FAILED, "410 is for good"
        await desk.after(1e5)
        await desk.broker.deliveries.again(id, desk.clock.now)
        await desk.after()
        await desk.after(6)
        return await desk.log(id)

    log = run(act)
    assert log.state is DeliveryState.DELIVERED
    assert [attempt.status for attempt in log.attempts] == [410, 500, 204]


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_a_receiver_that_says_when_to_come_back_is_obeyed(
    run: Run, hands: Hands, receiver: Receiver, as_date: bool
) -> None:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 120))
    receiver.answer(503, Retry_After=date if as_date else "120")

    async def act(desk: Desk) -> float:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        await desk.after()
        due_at = (await desk.log(id)).due_at
        assert due_at is not None
        return due_at - desk.clock.now

    assert 110 <= run(act) <= 121


@pytest.mark.parametrize("said", ["soon", "-5", "99999999999", "Mon, 99 Foo", FAR, ""])
def test_nonsense_of_when_to_come_back_does_no_harm(
    run: Run, hands: Hands, receiver: Receiver, said: str
) -> None:
    receiver.answer(503, Retry_After=said)

    async def act(desk: Desk) -> float:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        await desk.after()
        return ((await desk.log(id)).due_at or 0) - desk.clock.now

    assert 5 <= run(act) <= RETRY_SECONDS[-1]


def test_what_a_killed_gateway_had_begun_another_delivers(
    run: Run, hands: Hands, receiver: Receiver
) -> None:
    async def act(desk: Desk) -> None:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        [due] = await desk.broker.deliveries.claim(desk.clock(), 10)  # and is killed
        await desk.after(LEASE_SECONDS - 1)
        assert receiver.got == [], "it may still be at it"
        await desk.after(2)
        assert len(receiver.got) == 1
        log = await desk.log(id)
        assert (log.state, len(log.attempts)) == (DeliveryState.DELIVERED, 1)
        # It was only frozen: what it writes changes nothing.
        assert not await desk.broker.deliveries.settle(due, DeliveryState.FAILED)
        assert (await desk.log(id)).state is DeliveryState.DELIVERED

    run(act)


def test_of_many_gateways_one_delivers(run: Run, hands: Hands, receiver: Receiver) -> None:
    async def act(desk: Desk) -> None:
        ids = [await desk.submit(receiver.url) for _ in range(40)]
        for id in ids:
            hands.succeed(id)
        crew = [desk.another() for _ in range(4)]
        while any(await asyncio.gather(*(each.look() for each in crew))):
            await asyncio.gather(*(each.settled() for each in crew))
        await asyncio.gather(*(each.settled() for each in crew))

    run(act)
    assert len(receiver.ids) == len(set(receiver.ids)) == 40


def test_asked_for_again_while_it_is_sent_it_is_sent_again(
    run: Run, hands: Hands, receiver: Receiver
) -> None:
    async def act(desk: Desk) -> Delivery:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        at = desk.clock.now
        receiver.before = lambda: hands.redis.zadd("darkroom:deliveries", {id: at})
        await desk.after()
        receiver.before = lambda: None
        await desk.after()
        return await desk.log(id)

    log = run(act)
    assert [attempt.status for attempt in log.attempts] == [204, 204], "no attempt is forgotten"
    assert (log.state, log.due_at) == (DeliveryState.DELIVERED, None)


def test_what_is_deleted_meanwhile_leaves_nothing(
    run: Run, hands: Hands, receiver: Receiver, redis: Redis
) -> None:
    async def act(desk: Desk) -> None:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        generation = await desk.broker.get(id, owner="local")
        receiver.before = lambda: asyncio.run(removed(generation))
        await desk.after()
        hands.redis.zadd("darkroom:deliveries", {id: 1.0, "gen_of_nobody": 1.0})
        await desk.after()

    async def removed(generation: Any) -> None:
        broker = Broker(run_url, retention_seconds=RETENTION)
        await broker.remove(generation)
        await broker.close()

    run_url = redis.connection_pool.connection_kwargs["path"]
    run_url = f"unix://{run_url}"
    run(act)
    assert len(receiver.got) == 1
    assert redis.keys("darkroom:attempts:*") == []
    assert redis.exists("darkroom:deliveries") == 0


def test_one_that_expires_in_the_queue_is_told_although_nobody_looks(
    run: Run, hands: Hands, receiver: Receiver
) -> None:
    async def act(desk: Desk) -> None:
        webhook = Webhook(url=receiver.url)
        spec = a_spec(deadline_seconds=0.05)
        generation, _ = await desk.broker.submit(spec, owner="local", webhook=webhook)
        while time.time() < generation.deadline:
            await asyncio.sleep(0.01)
        await desk.after()
        assert (await desk.broker.get(generation.id, owner="local")).status == "expired"
        await desk.after()

    run(act)
    assert receiver.verified()["type"] == "generation.expired"
    assert len(set(receiver.ids)) == 1


def test_one_that_is_drawn_beyond_its_time_is_looked_at_later(
    run: Run, hands: Hands, receiver: Receiver
) -> None:
    async def act(desk: Desk) -> None:
        id = await desk.submit(receiver.url)
        hands.begin(id)
        await desk.after(1e5)
        assert receiver.got == []
        hands.end(id, GenerationState.EXPIRED)
        await desk.after()

    run(act)
    assert receiver.verified()["type"] == "generation.expired"


def test_a_record_that_cannot_be_read_stops_nobody_else(
    run: Run, hands: Hands, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(desk: Desk) -> None:
        broken, whole = [await desk.submit(receiver.url) for _ in range(2)]
        hands.succeed(broken)
        hands.redis.hset(f"darkroom:generation:{broken}", "spec", "{}")
        hands.succeed(whole)
        await desk.after()
        await desk.after(LEASE_SECONDS + 1)
        assert (await desk.log(whole)).state is DeliveryState.DELIVERED
        assert (await desk.log(broken)).state is DeliveryState.FAILED

    run(act)
    assert caplog.text.count("cannot be read") == 1
    assert len(receiver.got) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(
    run: Run, hands: Hands, receiver: Receiver, status: int
) -> None:
    receiver.answer(status, Location=f"{receiver.url}/elsewhere")

    async def act(desk: Desk) -> Delivery:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        await desk.after()
        return await desk.log(id)

    [attempt] = run(act).attempts
    assert (attempt.status, attempt.error) == (status, "redirects are not followed")
    assert receiver.paths == ["/hook"]


def test_a_proxy_of_the_environment_is_not_asked(
    run: Run, hands: Hands, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be told where to go by name, and might go anywhere."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def act(desk: Desk) -> Delivery:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        await desk.after()
        return await desk.log(id)

    assert run(act).state is DeliveryState.DELIVERED
    assert receiver.paths == ["/hook"]


def test_a_name_is_resolved_once_and_its_address_is_what_is_called(
    run: Run, hands: Hands, receiver: Receiver
) -> None:
    """As an attacker would have it whose name leads elsewhere the second time."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    port = receiver.url.split(":")[2].partition("/")[0]

    async def act(desk: Desk) -> Delivery:
        receiver.answer(500)
        id = await desk.submit(f"http://shop.example:{port}/hook?a=1")
        hands.succeed(id)
        await desk.after()
        await desk.after(6)
        return await desk.log(id)

    first, second = run(act, Guard(LOOPBACK, rebinding)).attempts
    assert (first.status, second.status) == (500, None)
    assert second.error == "not called: its host name does not lead to public addresses"
    assert asked == ["shop.example"] * 2
    [(headers, _)] = receiver.got
    assert headers["host"] == f"shop.example:{port}", "the name is what is asked for"
    assert receiver.paths == ["/hook?a=1"]


def test_of_several_addresses_the_first_that_answers_is_called(
    run: Run, hands: Hands, receiver: Receiver
) -> None:
    async def several(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    port = receiver.url.split(":")[2].partition("/")[0]

    async def act(desk: Desk) -> Delivery:
        id = await desk.submit(f"http://shop.example:{port}/hook")
        hands.succeed(id)
        await desk.after()
        return await desk.log(id)

    [attempt] = run(act, Guard(LOOPBACK, several)).attempts
    assert attempt.status == 204


@contextmanager
def listening(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A port, and what is said to it first; it answers so and closes."""
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                said.append(connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], said
        thread.join()


def called(run: Run, hands: Hands, url: str) -> Any:
    """The one attempt of calling it, by a name that leads to loopback."""

    async def here(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async def act(desk: Desk) -> Delivery:
        id = await desk.submit(url)
        hands.succeed(id)
        await desk.after()
        return await desk.log(id)

    [attempt] = run(act, Guard(LOOPBACK, here)).attempts
    return attempt


def test_tls_is_spoken_with_the_name_not_with_the_address(run: Run, hands: Hands) -> None:
    with listening(b"") as (port, said):
        attempt = called(run, hands, f"https://shop.example:{port}/")
    assert b"shop.example" in said[0]
    assert (attempt.status, attempt.error) == (None, "cannot connect: TLS failed")


def test_a_connection_that_breaks_is_told_in_words(run: Run, hands: Hands) -> None:
    with listening(b"") as (port, _):
        attempt = called(run, hands, f"http://shop.example:{port}/")
    # Closed, or reset where not all of the request had been read.
    assert attempt.error in (
        "the connection broke: RemoteProtocolError",
        "the connection broke: ReadError",
    )
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    attempt = called(run, hands, f"http://shop.example:{port}/")
    assert attempt.error == "cannot connect: nobody answers there"


def test_an_answer_without_end_is_not_read(run: Run, hands: Hands) -> None:
    """Nor unpacked: only its status matters."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 99999999999\r\n\r\n"
    with listening(head + 1000 * b"x") as (port, _):
        attempt = called(run, hands, f"http://shop.example:{port}/")
    assert (attempt.status, attempt.error) == (200, None)


def test_a_receiver_that_never_answers_is_given_up(
    run: Run, hands: Hands, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.webhooks.messenger.TIMEOUT_SECONDS", 0.1)
    answer = threading.Event()
    receiver.before = lambda: answer.wait(10)
    attempt = called(run, hands, receiver.url)
    answer.set()
    assert (attempt.status, attempt.error) == (None, "no answer within 0.1 seconds")


def test_an_unexpected_error_does_not_end_the_deliverer(
    run: Run,
    hands: Hands,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    told = threading.Event()
    receiver.before = told.set

    async def act(desk: Desk) -> None:
        id = await desk.submit(receiver.url)
        hands.succeed(id)
        look = desk.deliverer.look

        async def failing_once() -> bool:
            monkeypatch.setattr(desk.deliverer, "look", look)
            raise ValueError("odd")

        monkeypatch.setattr(desk.deliverer, "look", failing_once)
        desk.deliverer.start()
        assert await asyncio.to_thread(told.wait, 10)
        await desk.deliverer.stop()

    run(act)
    assert "looking again" in caplog.text
    assert len(receiver.got) == 1


def test_an_outage_of_redis_only_delays(
    hands: Hands, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(logging.getLogger("darkroom.hub"), "disabled", True)
    told = threading.Event()
    receiver.before = told.set
    own = RedisServer()
    own.start()

    async def act() -> None:
        broker = Broker(own.url, retention_seconds=RETENTION)
        with Redis.from_url(own.url) as redis:
            hands.redis = redis
            hands.serve()
            desk = Desk(broker)
            id = await desk.submit(receiver.url)
            hands.succeed(id)
            redis.config_set("appendfsync", "always")
            redis.set("flushed", 1)
            own.kill()
            desk.deliverer.start()
            await asyncio.to_thread(own.start)
            assert await asyncio.to_thread(told.wait, 10)
            await desk.deliverer.stop()
            await broker.close()

    try:
        asyncio.run(act())
    finally:
        own.close()
    assert len(receiver.got) == 1
