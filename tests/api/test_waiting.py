"""`Prefer: wait`, `Accept: image/…`, and what many waiters cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest
from redis import Redis

from server.broker import keys
from server.spec import GenerationState
from tests.api.house import Hands, soon, wait_until

Start = Callable[..., httpx.Client]
BODY = {"prompt": "a red circle"}


def newest(redis: Redis) -> str:
    wait_until(lambda: redis.llen("rq:queue:demo"))
    return redis.lindex("rq:queue:demo", -1).decode()  # type: ignore[union-attr, return-value]


def test_a_wait_answers_200_when_it_ends_in_time(
    client: httpx.Client, hands: Hands, redis: Redis
) -> None:
    with soon(lambda: hands.succeed(newest(redis))):
        answer = client.post("/v1/generations", json=BODY, headers={"Prefer": "wait=4"})
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert answer.headers["preference-applied"] == "wait=4"


def test_a_wait_answers_202_when_it_does_not(client: httpx.Client) -> None:
    answer = client.post("/v1/generations", json=BODY, headers={"Prefer": "foo; bar, wait=0"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["preference-applied"] == "wait=0"


def test_a_wait_is_bounded_and_says_so(start: Start) -> None:
    client = start(max_wait_seconds=0.2)
    answer = client.post("/v1/generations", json=BODY, headers={"Prefer": "wait=86400"})
    assert answer.headers["preference-applied"] == "wait=0.2"


@pytest.mark.parametrize("prefer", ["wait", "wait=soon", "wait=-1", "wait=1.5", "respond-async"])
def test_what_cannot_be_read_is_no_preference(client: httpx.Client, prefer: str) -> None:
    answer = client.post("/v1/generations", json=BODY, headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_an_image_is_answered_with_its_bytes(
    client: httpx.Client, hands: Hands, redis: Redis
) -> None:
    headers = {"Accept": "image/webp", "Prefer": "wait=4"}
    with soon(lambda: hands.succeed(newest(redis), b"RIFF")):
        answer = client.post("/v1/generations", json=BODY | {"eta": 0.5}, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"RIFF")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["darkroom-seed"] == "7"
    assert answer.headers["darkroom-warnings"] == "eta_ignored"
    id = answer.headers["darkroom-generation-id"]
    assert answer.headers["content-location"] == f"/v1/generations/{id}/images/0"
    spec = client.get(f"/v1/generations/{id}").json()["spec"]
    assert spec["output_format"] == "webp"


def test_without_a_wait_an_image_is_waited_for_as_long_as_allowed(start: Start) -> None:
    client = start(max_wait_seconds=0.2)
    answer = client.post("/v1/generations", json=BODY, headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["preference-applied"] == "wait=0.2"


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [
        (GenerationState.FAILED, "out_of_memory", 500),
        (GenerationState.FAILED, "code_of_a_newer_worker", 500),
        (GenerationState.EXPIRED, "deadline_exceeded", 504),
        (GenerationState.CANCELED, "", 409),
    ],
)
def test_an_image_that_was_not_drawn_is_a_problem(
    client: httpx.Client,
    hands: Hands,
    redis: Redis,
    state: GenerationState,
    code: str,
    status: int,
) -> None:
    with soon(lambda: hands.end(newest(redis), state, code, "in words")):
        answer = client.post("/v1/generations", json=BODY, headers={"Accept": "image/png"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["darkroom-generation-id"].startswith("gen_")


@pytest.mark.parametrize(
    ("accept", "body"),
    [
        ("text/html", {}),
        ("image/png", {"output_format": "webp"}),
        ("image/gif", {}),
        ("application/json;q=0", {}),
    ],
)
def test_what_cannot_be_made_is_406(
    client: httpx.Client, hands: Hands, accept: str, body: dict[str, str]
) -> None:
    answer = client.post("/v1/generations", json=BODY | body, headers={"Accept": accept})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert hands.queued() == 0


@pytest.mark.parametrize(
    "accept", ["*/*", "image/*;q=0.5, application/json", "text/html, */*;q=0.1"]
)
def test_json_is_answered_where_it_is_liked_as_much(client: httpx.Client, accept: str) -> None:
    answer = client.post("/v1/generations", json=BODY, headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/json"


def test_many_waiters_share_one_subscription(
    client: httpx.Client, hands: Hands, redis: Redis
) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=10) as own:
            headers = {"Prefer": "wait=5"}
            answers.append(own.post("/v1/generations", json=BODY, headers=headers))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: redis.llen("rq:queue:demo") == 4)
    assert "darkroom_waiters 4.0" in client.get("/metrics").text
    assert redis.pubsub_numsub(keys.CHANGES) == [(keys.CHANGES.encode(), 1)]
    for id in redis.lrange("rq:queue:demo", 0, -1):  # type: ignore[union-attr]
        hands.succeed(id.decode())
    for thread in threads:
        thread.join()
    assert [answer.json()["status"] for answer in answers] == ["succeeded"] * 4


def test_a_wait_ends_when_the_gateway_does(start: Start) -> None:
    client = start(max_wait_seconds=30.0)
    client.post("/v1/generations", json=BODY)
    ended: list[float] = []

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as own:
            own.post("/v1/generations", json=BODY, headers={"Prefer": "wait=30"})
            ended.append(time.monotonic())

    threading.Thread(target=ask).start()
    wait_until(lambda: "darkroom_waiters 1.0" in client.get("/metrics").text)
