"""A failover in the middle of a generation: gateway and worker go on at the new master."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.broker import hub, keys
from server.broker.entrance import entered
from server.config import Settings
from server.errors import DarkroomError
from server.workers.simulated import SimulatedDenoiser
from tests.api.house import gateway
from tests.fuzz.worker import simulated
from tests.redises import MASTER, Node, Watched, eventually

STEPS = 80
STEP_SECONDS = 0.05
BODY = {"prompt": "a red circle", "num_inference_steps": STEPS}
SHORT = {"prompt": "a red circle", "num_inference_steps": 2}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    try:
        watched.start()
        yield watched
    finally:
        watched.close()


@pytest.fixture
def client(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    """Of a gateway with a worker, who know the Sentinels alone."""
    monkeypatch.setattr(hub, "PING_SECONDS", 0.5)
    monkeypatch.setattr(hub, "SILENT_SECONDS", 2.0)
    settings = Settings(redis=watched.url, data_dir=tmp_path)
    denoiser = SimulatedDenoiser(lambda rows: STEP_SECONDS)
    worker = simulated(settings, "demo", denoiser=denoiser)
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        with gateway(watched.url, tmp_path) as client:
            eventually(lambda: client.get("/readyz").status_code == 200)
            yield client
    finally:
        worker.request_stop()
        thread.join(30)


def begun(client: httpx.Client, master: Node) -> str:
    """Where a generation is that is being drawn, as the replica knows."""
    where = str(client.post("/v1/generations", json=BODY).headers["location"])
    eventually(lambda: client.get(where).json()["progress"]["steps_done"] > 2)
    with master.client() as redis:
        assert redis.wait(1, 10_000) == 1
    return where


def ended(client: httpx.Client, where: str) -> dict[str, Any]:
    """The record; a gateway whose Redis is away says 503 meanwhile."""
    terminal = ("succeeded", "failed", "canceled", "expired")

    def record() -> Any:
        answer = client.get(where)
        return answer.json() if answer.json().get("status") in terminal else None

    found: dict[str, Any] = eventually(record, 60)
    return found


def told(client: httpx.Client, where: str) -> list[str]:
    """The states that it went through."""
    text = client.get(f"{where}/events").text
    said = re.findall(r"^event: state$\n(?:^id: .*$\n)?^data: (.*)$", text, re.MULTILINE)
    return [json.loads(each)["status"] for each in said]


def drawn_at_once(client: httpx.Client) -> None:
    """The gateway accepts, and hears that it is done."""

    def drawn() -> bool:
        answer = client.post("/v1/generations", json=SHORT, headers={"Prefer": "wait=5"})
        return answer.status_code == 200 and answer.json()["status"] == "succeeded"

    eventually(drawn, 30)


@pytest.mark.parametrize("leaves", [Node.kill, lambda node: node.send(signal.SIGSTOP)])
def test_a_generation_is_drawn_on_when_the_master_dies_or_hangs(
    watched: Watched, client: httpx.Client, leaves: Callable[[Node], None]
) -> None:
    old = watched.master
    where = begun(client, old)
    leaves(old)
    new = watched.await_other_than(old)
    assert ended(client, where)["status"] == "succeeded"
    assert told(client, where)[:2] == ["queued", "running"]
    assert told(client, where).count("running") == 1, "it was not begun again"
    with new.client() as redis:
        eventually(lambda: redis.pubsub_numsub(keys.CHANGES)[0][1] == 1)
    drawn_at_once(client)


def test_a_planned_failover_loses_nothing_that_was_accepted(
    watched: Watched, client: httpx.Client
) -> None:
    old = watched.master
    where, accepted = begun(client, old), []
    with old.client() as redis, watched.sentinels[0].client() as sentinel:
        redis.client_pause(20_000, all=False)
        sentinel.execute_command("SENTINEL FAILOVER", MASTER)

    def moved() -> bool:
        answer = client.post("/v1/generations", json=SHORT)
        accepted.extend([answer.headers["location"]] if answer.status_code == 202 else [])
        return len(accepted) == 20

    eventually(moved, 60)
    assert {ended(client, each)["status"] for each in [where, *accepted]} == {"succeeded"}
    assert told(client, where).count("running") == 1
    with watched.await_other_than(old).client() as redis:
        for each in [where, *accepted]:
            assert redis.exists(keys.generation(each.rpartition("/")[2]))


def test_a_master_that_nobody_knows_is_said(watched: Watched) -> None:
    url = watched.url.replace(f"/{MASTER}/", "/elsewhere/")
    with pytest.raises(DarkroomError, match="know no master 'elsewhere'"):
        entered(url, lambda client: client.ping())


def test_while_no_sentinel_answers_it_is_an_outage_like_any_other(watched: Watched) -> None:
    for each in watched.sentinels:
        each.kill()
    assert entered(watched.url, lambda client: client.ping()) is None
