from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from server.api import events
from server.broker import keys
from tests.api.house import Hands, soon, wait_until

Submit = Callable[..., str]
Start = Callable[..., httpx.Client]


def follow(client: httpx.Client, id: str, last: str | None = None) -> list[dict[str, Any]]:
    """Every event of the stream until the gateway ends it."""
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", f"/v1/generations/{id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return parsed(answer.read().decode())


def parsed(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append(fields | {"data": json.loads(fields["data"])})
    return found


def test_a_stream_tells_everything_and_ends(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    actions = [
        lambda: hands.begin(id),
        lambda: hands.progress(id, 2),
        lambda: hands.succeed(id),
    ]
    with soon(*actions):
        told = follow(client, id)
    kinds = [event["event"] for event in told]
    assert kinds == ["state", "state", "progress", "image", "state", "done"]
    assert told[2]["data"] == {"steps_done": 2, "steps_total": 4, "fraction": 0.5}
    assert told[-1]["data"] == {"status": "succeeded"}


def test_a_stream_is_taken_up_where_it_was_lost(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    hands.begin(id)
    hands.progress(id, 1)
    hands.succeed(id)
    all_of_it = follow(client, id)
    rest = follow(client, id, last=all_of_it[2]["id"])
    assert rest == all_of_it[3:]


def test_a_stream_after_its_end_is_empty_and_ends(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    hands.succeed(id)
    last = follow(client, id)[-1]
    assert follow(client, id, last=last["id"]) == []


@pytest.mark.parametrize("last", ["x", "1-", "-1", "1-2-3", "$", "+"])
def test_a_malformed_last_event_id_is_refused(
    client: httpx.Client, submit: Submit, last: str
) -> None:
    headers = {"Last-Event-ID": last}
    answer = client.get(f"/v1/generations/{submit()}/events", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


def test_a_quiet_stream_is_kept_open_by_pings(
    client: httpx.Client, hands: Hands, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PING_SECONDS", 0.05)
    id = submit()
    with client.stream("GET", f"/v1/generations/{id}/events") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("retry")) == "retry: 2000"
        assert next(line for line in lines if line.startswith(": ping"))


def test_a_stream_of_what_is_deleted_meanwhile_ends(
    client: httpx.Client, redis: Redis, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PING_SECONDS", 0.1)
    id = submit()
    with soon(lambda: redis.delete(keys.generation(id), keys.events(id))):
        told = follow(client, id)
    assert [event["event"] for event in told] == ["state"]


def test_a_client_that_goes_away_leaves_nothing_behind(
    client: httpx.Client, submit: Submit
) -> None:
    id = submit()
    with httpx.Client(base_url=client.base_url) as own:  # noqa: SIM117
        with own.stream("GET", f"/v1/generations/{id}/events") as answer:
            lines = answer.iter_lines()  # dropping it would close the stream
            next(lines)
            wait_until(lambda: "darkroom_event_streams 1.0" in client.get("/metrics").text)
    wait_until(lambda: "darkroom_event_streams 0.0" in client.get("/metrics").text)
    assert "darkroom_waiters 0.0" in client.get("/metrics").text


def test_a_stream_ends_when_the_gateway_does(start: Start) -> None:
    client = start()
    id = client.post("/v1/generations", json={"prompt": "x"}).json()["id"]
    url = f"{client.base_url}/v1/generations/{id}/events"
    threading.Thread(target=httpx.get, args=(url,), kwargs={"timeout": 30}).start()
    wait_until(lambda: "darkroom_event_streams 1.0" in client.get("/metrics").text)
