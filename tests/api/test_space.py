"""An image store with too little room left."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from server.supervisor import ready_workers
from tests.api.house import Hands, wait_until

MIB = 2**20
Start = Callable[..., httpx.Client]


class Disk:
    """What the file system says it has left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 10 * 2**30
        self.looks = 0
        self.hangs = Event()
        self.hangs.set()
        monkeypatch.setattr("server.storage.os.statvfs", self._statvfs)
        monkeypatch.setattr("server.api.space.LOOK_SECONDS", 0.0)

    def _statvfs(self, path: Any) -> Any:
        self.looks += 1
        self.hangs.wait()
        if self.free < 0:
            raise OSError(errno.EIO, "Input/output error")
        return SimpleNamespace(f_bavail=self.free, f_frsize=1)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def draw(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/generations", json={"prompt": "a red circle"} | fields)


def test_what_was_accepted_before_is_no_new_generation(start: Start, disk: Disk) -> None:
    client = start(min_free_bytes=100 * MIB)
    body = {"prompt": "a red circle"}

    def post(key: str, **fields: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key}
        return client.post("/v1/generations", json=body | fields, headers=headers)

    accepted = post("one")
    disk.free = 99 * MIB
    again = post("one")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json()["id"] == accepted.json()["id"]
    assert [post("two").status_code, post("one", seed=1).status_code] == [503, 503]


def test_new_generations_are_refused_until_there_is_room_again(
    start: Start, disk: Disk, hands: Hands
) -> None:
    client = start(min_free_bytes=100 * MIB)
    accepted = draw(client).json()["id"]
    disk.free = 99 * MIB
    refused = draw(client)
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_full")
    assert refused.json()["detail"] == "the image store has 99 MiB left, and keeps 100 MiB free"
    assert refused.headers["retry-after"] == "30"
    assert hands.queued() == 1
    hands.succeed(accepted)
    assert client.get(f"/v1/generations/{accepted}/images/0").content == b"PNG"
    disk.free = 100 * MIB
    assert draw(client).status_code == 202


def test_a_request_that_is_wrong_is_told_so_even_then(start: Start, disk: Disk) -> None:
    client = start()
    disk.free = 0
    assert draw(client, width=1).status_code == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", {"prompt": "a red circle"}),
        ("/sdapi/v1/txt2img", {"prompt": "a red circle"}),
    ],
)
def test_the_other_doors_refuse_likewise(
    start: Start, disk: Disk, path: str, body: dict[str, Any]
) -> None:
    client = start()
    disk.free = 0
    answer = client.post(path, json=body)
    assert answer.status_code == 503
    assert "the image store has 0 MiB left" in answer.text


def test_readiness_names_it_and_metrics_count_it(start: Start, disk: Disk) -> None:
    client = start(min_free_bytes=100 * MIB)
    assert client.get("/readyz").json()["ready"]
    here = str(client.base_url)
    disk.free = 5 * MIB
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the image store has too little room left"]
    assert ready_workers(here) == 1, "it is not the workers that are missing"
    assert draw(client).status_code == 503
    page = client.get("/metrics").text
    assert "darkroom_store_free_bytes 5.24288e+06" in page
    assert 'darkroom_generations_refused_total{code="storage_full"} 1.0' in page


def test_a_store_that_is_not_there_refuses_too(start: Start, disk: Disk) -> None:
    client = start()
    disk.free = -1
    answer = draw(client)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.json()["detail"] == "the image store is not there"


def test_the_log_tells_once_when_it_is_full_and_when_it_is_not(
    start: Start, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "darkroom.storage")
    client = start(min_free_bytes=100 * MIB)
    for disk.free in (10, 9, 200 * MIB, 300 * MIB):
        for _ in range(3):
            draw(client)
    told = [record.getMessage() for record in caplog.records if record.name == "darkroom.storage"]
    assert told == [
        "new generations are refused: the image store has 0 MiB left, and keeps 100 MiB free",
        "the image store takes more again",
    ]


def test_a_store_that_may_not_be_written_is_not_ready(
    start: Start, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr("server.storage.os.access", lambda path, mode: False)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["reasons"] == ["the image store cannot be written"]
    assert draw(client).json()["detail"] == "the image store cannot be written"


def test_where_room_does_not_matter_nothing_is_refused_for_it(start: Start, disk: Disk) -> None:
    client = start(min_free_bytes=0)
    disk.free = 0
    assert draw(client).status_code == 202
    disk.free = -1
    assert draw(client).json()["detail"] == "the image store is not there"


def test_a_store_that_hangs_is_no_better_than_one_that_is_away(
    start: Start, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.space.PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("server.api.space.HANGS_SECONDS", 0.2)
    client = start()
    assert draw(client).status_code == 202
    disk.hangs.clear()
    try:
        wait_until(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["reasons"] == ["the image store does not answer"]
        assert draw(client).json()["detail"] == "the image store does not answer"
    finally:
        disk.hangs.set()
    wait_until(lambda: draw(client).status_code == 202)


def test_it_is_looked_at_once_a_second_at_most(
    start: Start, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.space.LOOK_SECONDS", 600.0)
    client = start()
    for _ in range(20):
        assert draw(client).status_code == 202
    assert disk.looks == 1
