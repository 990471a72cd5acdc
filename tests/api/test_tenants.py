"""Two keys over every route: what is another's looks as if it had never been, and is left alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from redis import Redis

from server.api.scopes import NEEDED
from tests.api.house import Hands, bearer, gateway, key_of, wait_until
from tests.redis_server import RedisServer

RANDOM = "gen_" + "5" * 32
SECRET = "whsec_" + "c2VjcmV0" * 4
OF_ONE = [name for name in NEEDED if "/v1/generations/{id}" in name]
MARK = "a very private prompt"
JPEG = b"\xff\xd8\xff a preview"


class Two(NamedTuple):
    """Somebody with pictures, and somebody else."""

    mine: httpx.Client
    other: httpx.Client
    drawn: str
    waits: str
    hands: Hands


@pytest.fixture(scope="module")
def house(server: RedisServer, folder: Path) -> Iterator[httpx.Client]:
    with gateway(server.url, folder, webhook_secret=SECRET) as client:
        yield client


@pytest.fixture
def two(house: httpx.Client, redis: Redis, hands: Hands) -> Iterator[Two]:
    keys = [key_of(redis, name, scopes=("admin",)) for name in ("mine", "other")]
    wait_until(lambda: house.get("/v1/queue").status_code == 401)
    mine, other = (httpx.Client(base_url=house.base_url, headers=bearer(key)) for key in keys)
    with mine, other:
        ids = []
        for url in ("https://hooks.invalid/drawn", "https://hooks.invalid/waits"):
            sent = {"prompt": MARK, "webhook": {"url": url}, "previews": 2}
            answer = mine.post("/v1/generations", json=sent)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
        drawn, waits = ids
        hands.begin(drawn)
        assert hands.show(drawn, JPEG)
        hands.succeed(drawn)
        yield Two(mine, other, drawn, waits, hands)


def ask(client: httpx.Client, name: str, id: str) -> httpx.Response:
    method, _, path = name.partition(" ")
    return client.request(method, path.replace("{id}", id).replace("{index}", "0"))


def test_the_matrix_has_every_route_of_one_generation() -> None:
    assert len(OF_ONE) == 9


@pytest.mark.parametrize("name", OF_ONE)
def test_another_ones_id_is_answered_as_one_that_never_was(two: Two, name: str) -> None:
    expected = ask(two.other, name, RANDOM)
    assert expected.status_code == 404
    for id in (two.drawn, two.waits):
        answer = ask(two.other, name, id)
        assert answer.status_code == 404
        assert answer.text.replace(id, RANDOM) == expected.text
        assert {*answer.headers} == {*expected.headers}
    assert two.mine.get(f"/v1/generations/{two.drawn}").json()["status"] == "succeeded"
    assert two.mine.get(f"/v1/generations/{two.waits}").json()["status"] == "queued"


@pytest.mark.parametrize("name", [name for name in OF_ONE if not name.startswith("DELETE")])
def test_its_owner_reaches_it(two: Two, name: str) -> None:
    assert ask(two.mine, name, two.drawn).status_code in (200, 202)


def test_no_list_shows_what_is_another_ones(two: Two) -> None:
    assert two.other.get("/v1/generations").json()["generations"] == []
    for name, needed in NEEDED.items():
        method, _, path = name.partition(" ")
        if method == "GET" and "{" not in path and needed is not None:
            shown = two.other.get(path).text
            assert not {MARK, two.drawn, two.waits} & set(shown.split('"')), name
            assert MARK not in shown, name
            assert two.drawn not in shown, name
    page = two.mine.get("/v1/generations").json()["generations"]
    assert [one["id"] for one in page] == [two.waits, two.drawn]


def test_an_idempotency_key_is_each_ones_own(two: Two) -> None:
    once: dict[str, Any] = {"json": {"prompt": "x"}, "headers": {"Idempotency-Key": "order-81"}}
    first = two.mine.post("/v1/generations", **once).json()["id"]
    again = two.mine.post("/v1/generations", **once).json()["id"]
    other = two.other.post("/v1/generations", **once)
    assert first == again != other.json()["id"]
    assert other.status_code == 202
    changed = {"json": {"prompt": "y"}, "headers": {"Idempotency-Key": "order-81"}}
    assert two.other.post("/v1/generations", **changed).json()["code"] == "idempotency_conflict"


def test_a1111_callers_see_and_stop_their_own_alone(two: Two) -> None:
    def pending(who: httpx.Client) -> list[str]:
        return list(who.get("/internal/pending-tasks").json()["tasks"])

    def draw() -> None:
        task = {"prompt": "x", "steps": 4, "force_task_id": "task(mine)"}
        answers.append(two.mine.post("/sdapi/v1/txt2img", json=task, timeout=30))

    answers: list[httpx.Response] = []
    drawing = threading.Thread(target=draw)
    drawing.start()
    wait_until(lambda: pending(two.mine) == ["task(mine)"])
    assert pending(two.other) == []
    assert two.other.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0
    asked = {"id_task": "task(mine)"}
    assert two.other.post("/internal/progress", json=asked).json()["completed"] is True
    for path in ("interrupt", "skip"):
        assert two.other.post(f"/sdapi/v1/{path}").status_code == 200
    assert pending(two.mine) == ["task(mine)"]
    assert two.mine.post("/sdapi/v1/interrupt").status_code == 200
    drawing.join(15)
    assert answers[0].json()["images"] == []


def test_a1111_settings_are_each_ones_own(two: Two) -> None:
    two.mine.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2})
    read = "/sdapi/v1/options"
    assert two.mine.get(read).json()["CLIP_stop_at_last_layers"] == 2
    assert two.other.get(read).json()["CLIP_stop_at_last_layers"] == 1


def test_what_was_drawn_before_there_were_keys_is_nobodys(
    server: RedisServer, folder: Path, redis: Redis, hands: Hands
) -> None:
    with gateway(server.url, folder) as client:
        id = client.post("/v1/generations", json={"prompt": "x"}).json()["id"]
        key = key_of(redis, scopes=("admin",))
        wait_until(lambda: client.get("/v1/queue").status_code == 401)
        assert client.get(f"/v1/generations/{id}", headers=bearer(key)).status_code == 404
