"""Webhooks through a whole gateway: what is accepted, what arrives, what can be read of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from server.spec import GenerationState
from tests.api.house import Hands, gateway, wait_until
from tests.api.receiver import OTHER_SECRET, SECRET, Receiver, receiving
from tests.redis_server import RedisServer

Start = Callable[..., httpx.Client]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def caller(start: Start) -> httpx.Client:
    """Of a gateway that signs, and may call loopback addresses."""
    return start(webhook_secret=SECRET, webhook_allow="127.0.0.0/8")


def submitted(client: httpx.Client, **webhook: Any) -> str:
    body = {"prompt": "a red circle", "webhook": webhook}
    answer = client.post("/v1/generations", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def log_of(client: httpx.Client, id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/generations/{id}/webhook")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_whoever_asked_is_told_with_a_good_signature(
    caller: httpx.Client, hands: Hands, receiver: Receiver
) -> None:
    id = submitted(caller, url=receiver.url)
    assert log_of(caller, id) == {
        "url": receiver.url,
        "states": [],
        "state": "pending",
        "attempts": [],
        "next_attempt_at": None,
    }
    hands.succeed(id, b"PNG")
    wait_until(lambda: log_of(caller, id)["state"] == "delivered")
    told = receiver.verified()
    record = caller.get(f"/v1/generations/{id}").json()
    assert told == {
        "type": "generation.succeeded",
        "timestamp": record["finished_at"],
        "data": record,
    }
    [attempt] = log_of(caller, id)["attempts"]
    assert (attempt["status"], attempt["error"]) == (204, None)
    headers, _ = receiver.got[0]
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("Darkroom/")
    assert "accept-encoding" not in headers or headers["connection"] == "close"


@pytest.mark.parametrize("state", ["failed", "canceled", "expired"])
def test_every_other_end_is_told_too(
    caller: httpx.Client, hands: Hands, receiver: Receiver, state: str
) -> None:
    id = submitted(caller, url=receiver.url)
    if state == "canceled":
        caller.post(f"/v1/generations/{id}/cancel")
    else:
        hands.end(id, GenerationState(state), "out_of_memory", "it does not fit")
    wait_until(lambda: receiver.got)
    told = receiver.verified()
    assert (told["type"], told["data"]["status"]) == (f"generation.{state}", state)


def test_only_the_states_asked_for_are_told(
    caller: httpx.Client, hands: Hands, receiver: Receiver
) -> None:
    ids = [submitted(caller, url=receiver.url, states=["failed", "expired"]) for _ in range(2)]
    hands.succeed(ids[0])
    hands.end(ids[1], GenerationState.FAILED, "not_finite", "NaN")
    wait_until(lambda: log_of(caller, ids[1])["state"] == "delivered")
    wait_until(lambda: log_of(caller, ids[0])["state"] == "skipped")
    assert len(receiver.got) == 1
    assert log_of(caller, ids[0])["states"] == ["failed", "expired"]


def test_while_the_secret_is_changed_both_are_good(
    start: Start, hands: Hands, receiver: Receiver
) -> None:
    client = start(webhook_secret=f"{OTHER_SECRET} {SECRET}", webhook_allow="127.0.0.1")
    id = submitted(client, url=receiver.url)
    hands.succeed(id)
    wait_until(lambda: receiver.got)
    assert receiver.verified(secret=SECRET) == receiver.verified(secret=OTHER_SECRET)


def test_it_can_be_delivered_again(caller: httpx.Client, hands: Hands, receiver: Receiver) -> None:
    id = submitted(caller, url=receiver.url)
    receiver.answer(410)
    hands.succeed(id)
    wait_until(lambda: log_of(caller, id)["state"] == "failed")
    answer = caller.post(f"/v1/generations/{id}/webhook/redeliver")
    assert answer.status_code == 202
    assert answer.json()["url"] == receiver.url
    wait_until(lambda: log_of(caller, id)["state"] == "delivered")
    assert [each["status"] for each in log_of(caller, id)["attempts"]] == [410, 204]
    assert len(set(receiver.ids)) == 1, "it is the same message"
    assert receiver.verified(0) == receiver.verified(1)


def test_what_has_not_ended_is_not_delivered_by_asking(
    caller: httpx.Client, hands: Hands, receiver: Receiver
) -> None:
    id = submitted(caller, url=receiver.url)
    answer = caller.post(f"/v1/generations/{id}/webhook/redeliver")
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    assert answer.json()["next_attempt_at"] is None
    hands.succeed(id)
    wait_until(lambda: receiver.got)
    assert len(receiver.got) == 1


def test_what_is_deleted_is_told_to_nobody(
    caller: httpx.Client, hands: Hands, receiver: Receiver, redis: Redis
) -> None:
    id, other = submitted(caller, url=receiver.url), submitted(caller, url=receiver.url)
    receiver.answer(500)
    hands.succeed(id)
    wait_until(lambda: len(log_of(caller, id)["attempts"]) == 1)
    assert log_of(caller, id)["next_attempt_at"] is not None
    assert caller.delete(f"/v1/generations/{id}").status_code == 204
    assert redis.zrange("darkroom:deliveries", 0, -1) == [other.encode()]
    assert redis.keys(f"darkroom:attempts:{id}") == []
    assert caller.get(f"/v1/generations/{id}/webhook").status_code == 410
    assert caller.post(f"/v1/generations/{id}/webhook/redeliver").status_code == 410


def test_the_log_lives_as_long_as_the_record(
    caller: httpx.Client, hands: Hands, receiver: Receiver, redis: Redis
) -> None:
    id = submitted(caller, url=receiver.url)
    hands.succeed(id)
    wait_until(lambda: log_of(caller, id)["state"] == "delivered")
    kept: Any = [redis.ttl(f"darkroom:{what}:{id}") for what in ("generation", "attempts")]
    assert 0 < kept[1] <= kept[0] + 1


def test_a_webhook_needs_a_secret_to_sign_with(client: httpx.Client, hands: Hands) -> None:
    body = {"prompt": "a red circle", "webhook": {"url": "https://shop.example/hook"}}
    answer = client.post("/v1/generations", json=body)
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert problem["field"] == "webhook"
    assert "DARKROOM_WEBHOOK_SECRET" in problem["message"]
    assert hands.queued() == 0


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        ({"url": "http://169.254.169.254/latest/meta-data"}, "webhook.url"),
        ({"url": "http://user:planted@shop.example/"}, "webhook.url"),
        ({"url": "http://10.0.0.1/"}, "webhook.url"),
        ({"url": "ftp://shop.example/"}, "webhook.url"),
        ({"url": ""}, "webhook.url"),
        ({"url": "https://shop.example/" + 2048 * "x"}, "webhook.url"),
        ({}, "webhook.url"),
        ({"url": "https://shop.example/", "states": ["queued"]}, "webhook.states.0"),
        ({"url": "https://shop.example/", "states": []}, "webhook.states"),
        ({"url": "https://shop.example/", "secret": "x"}, "webhook.secret"),
        ("https://shop.example/", "webhook"),
    ],
)
def test_what_could_never_be_called_is_refused_when_it_is_asked(
    caller: httpx.Client, hands: Hands, webhook: Any, field: str
) -> None:
    answer = caller.post("/v1/generations", json={"prompt": "a red circle", "webhook": webhook})
    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.json()["errors"]] == [field]
    assert "planted" not in answer.text
    assert hands.queued() == 0


def test_a_generation_without_a_webhook_has_none_to_look_at(
    caller: httpx.Client, hands: Hands, redis: Redis
) -> None:
    id = caller.post("/v1/generations", json={"prompt": "a red circle"}).json()["id"]
    assert caller.get(f"/v1/generations/{id}/webhook").status_code == 404
    assert caller.post(f"/v1/generations/{id}/webhook/redeliver").status_code == 404
    hands.succeed(id)
    assert redis.exists("darkroom:deliveries") == 0


def test_the_secret_is_neither_shown_nor_logged(
    start: Start, hands: Hands, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = start(webhook_secret=SECRET, webhook_allow="127.0.0.1", log_level="debug")
    url = f"{receiver.url}?token=planted-marker"
    receiver.answer(410)
    id = submitted(client, url=url)
    hands.succeed(id)
    wait_until(lambda: log_of(client, id)["state"] == "failed")
    ours = "".join(r.getMessage() for r in caplog.records if r.name.startswith("darkroom"))
    assert "given up" in ours
    assert SECRET.removeprefix("whsec_") not in caplog.text + client.get("/openapi.json").text
    assert "planted-marker" not in ours
    assert "darkroom_webhook_calls_total" in client.get("/metrics").text


def test_a_gateway_that_ends_does_not_wait_for_a_slow_receiver(
    server: RedisServer, folder: Path, hands: Hands, receiver: Receiver
) -> None:
    answer = threading.Event()
    receiver.before = lambda: answer.wait(30)
    try:
        with gateway(
            server.url, folder, webhook_secret=SECRET, webhook_allow="127.0.0.1"
        ) as client:
            hands.succeed(submitted(client, url=receiver.url))
            wait_until(lambda: receiver.got)
            began = time.monotonic()
        assert time.monotonic() - began < 5
    finally:
        answer.set()
