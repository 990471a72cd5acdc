"""Images in a bucket, over the real S3 API: all of a gateway and a worker, and what is said where
the bucket is away or closed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import obstore
import pytest
from redis import Redis
from rich.console import Console

from server.cloud import expect_bucket
from server.config import Settings
from server.errors import DarkroomError, Unavailable
from server.remote import save
from server.spec import new_generation_id
from server.storage import open_store
from server.workers.simulated import SimulatedDenoiser
from tests.api.house import bearer, gateway, key_of, wait_until
from tests.api.pictures import picture, text
from tests.fuzz.worker import simulated
from tests.redis_server import RedisServer
from tests.s3 import S3Server

BODY = {"prompt": "a red circle", "num_inference_steps": 3}
WAIT = {"Prefer": "wait=5"}
REDIRECTED = 307


@pytest.fixture
def client(
    server: RedisServer, redis: Redis, bucket: str, tmp_path: Path
) -> Iterator[httpx.Client]:
    """Of a gateway with a worker, who share a bucket and no folder."""
    with served(server, bucket, tmp_path) as client:
        yield client


@pytest.fixture
def lending(
    server: RedisServer, redis: Redis, bucket: str, tmp_path: Path
) -> Iterator[httpx.Client]:
    """The same, where the bucket gives images out itself."""
    with served(server, bucket, tmp_path, presigned_seconds=60) as client:
        yield client


@contextmanager
def served(
    server: RedisServer, bucket: str, folder: Path, step_seconds: float = 0.0, **settings: Any
) -> Iterator[httpx.Client]:
    mine = Settings(redis=server.url, storage=bucket, data_dir=folder / "worker", lease_seconds=0.9)
    denoiser = SimulatedDenoiser(lambda rows: step_seconds)
    worker = simulated(mine, "demo", denoiser=denoiser)
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        with gateway(server.url, folder / "gateway", storage=bucket, **settings) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            yield client
    finally:
        worker.request_stop()
        thread.join(20)


def drawn(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    record: dict[str, Any] = client.post("/v1/generations", json=BODY | fields, headers=WAIT).json()
    assert record["status"] == "succeeded"
    return record


def kept(shared_s3: S3Server, bucket: str) -> list[Path]:
    """The files in the bucket, as it keeps them itself."""
    found = shared_s3.folder(urlsplit(bucket).netloc).rglob("some/prefix/gen_*/*")
    return sorted(path for path in found if path.is_file() and ".nanio" not in str(path))


def test_a_generation_is_drawn_served_and_removed(
    client: httpx.Client, shared_s3: S3Server, bucket: str
) -> None:
    record = drawn(client, output_format="webp", num_images=2)
    files = kept(shared_s3, bucket)
    assert [path.parent.name for path in files] == 2 * [record["id"]]
    answer = client.get(record["images"][0]["url"])
    assert answer.content == files[0].read_bytes()
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["content-type"] == "image/webp"
    etag = {"If-None-Match": answer.headers["etag"]}
    assert client.get(record["images"][0]["url"], headers=etag).status_code == 304
    part = client.get(record["images"][0]["url"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (200, answer.content), "there are no parts"
    assert client.delete(record["urls"]["self"]).status_code == 204
    assert kept(shared_s3, bucket) == []


def test_what_is_sent_and_what_one_stage_hands_to_the_next_goes_through_it(
    client: httpx.Client, shared_s3: S3Server, bucket: str
) -> None:
    sent = {"task": "image-to-image", "image": text(picture()), "strength": 1.0}
    record = drawn(client, refiner={"checkpoint": "demo", "switch_at": 0.5}, **sent)

    def names() -> list[str]:
        return [path.name.partition("-")[0] for path in kept(shared_s3, bucket)]

    wait_until(lambda: names() == ["0", "input"])  # what was handed on is removed
    assert client.get(record["images"][0]["url"]).content[:4] == b"\x89PNG"


def test_a_bucket_that_is_away_for_a_moment_loses_nothing(
    server: RedisServer, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = S3Server()
    own.folder("bucket")
    own.start()
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("server.storage.ASK_SECONDS", 0.0)
    try:
        with served(server, "s3://bucket", tmp_path, step_seconds=0.02) as client:
            body = BODY | {"num_inference_steps": 20}
            where = client.post("/v1/generations", json=body).headers["location"]
            own.kill()
            wait_until(lambda: client.get("/readyz").status_code == 503)
            assert client.get("/readyz").json()["reasons"] == ["the image store cannot be reached"]
            refused = client.post("/v1/generations", json=BODY)
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            wait_until(lambda: client.get(where).json()["progress"]["steps_done"] == 20)
            assert client.get(where).json()["status"] == "running"
            own.start()
            wait_until(lambda: client.get(where).json()["status"] == "succeeded", 30)
            assert client.get(f"{where}/images/0").status_code == 200
            wait_until(lambda: client.get("/readyz").status_code == 200)
    finally:
        own.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another"}, "does not let us in"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "does not let us in"),
        ({}, "has no such bucket"),
    ],
)
def test_a_bucket_that_is_closed_is_said_in_words(
    server: RedisServer,
    redis: Redis,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, str],
    words: str,
) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    location = bucket if wrong else "s3://nowhere/some/prefix"
    with pytest.raises(DarkroomError, match=f"{words}: {location}") as told:
        expect_bucket(location)
    assert "AWS_SECRET_ACCESS_KEY" in told.value.message
    assert "another" not in told.value.message
    with gateway(server.url, tmp_path, storage=location) as client:
        assert f"the image store {words}" in client.get("/readyz").json()["reasons"]
        refused = client.post("/v1/generations", json=BODY)
        assert (refused.status_code, refused.json()["detail"]) == (503, f"the image store {words}")


@pytest.mark.parametrize("command", ["gateway", "worker --checkpoint demo", "serve"])
def test_a_command_whose_bucket_is_closed_ends_at_once(
    server: RedisServer, bucket: str, command: str
) -> None:
    closed = {"DARKROOM_STORAGE": bucket, "AWS_SECRET_ACCESS_KEY": "another"}
    refused = subprocess.run(
        [sys.executable, "-m", "server", *command.split()],
        env=os.environ | {"DARKROOM_REDIS": server.url, "DARKROOM_PORT": "0"} | closed,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert f"the image store does not let us in: {bucket}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_bucket_that_is_only_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = S3Server()
    nobody.close()
    for name, value in nobody.environment.items():
        monkeypatch.setenv(name, value)
    expect_bucket("s3://bucket")
    expect_bucket("")
    expect_bucket("memory://")
    store = open_store("s3://bucket", Path())
    with pytest.raises(Unavailable, match="cannot be reached"):
        store.free_bytes()


def test_what_is_no_image_store_is_said() -> None:
    with pytest.raises(DarkroomError, match="no URL that can be read"):
        expect_bucket("s3://[bucket")
    for location in ("s4://bucket", "http://127.0.0.1:1/pictures"):
        with pytest.raises(DarkroomError, match="DARKROOM_STORAGE is no image store"):
            expect_bucket(location)


@pytest.mark.parametrize(
    "location",
    ["s3://id:hush@bucket", "ftp://u:hush@h/x", "s3://b?secret_access_key=hush", "http://u:hush@h"],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(location: str) -> None:
    with pytest.raises(DarkroomError, match="come from the environment") as told:
        expect_bucket(location)
    assert "hush" not in told.value.message


def test_an_image_is_lent_to_whoever_may_see_it_and_to_nobody_else(
    lending: httpx.Client, redis: Redis
) -> None:
    mine, other = key_of(redis), key_of(redis, "other")
    wait_until(lambda: lending.get("/v1/queue").status_code == 401)
    lending.headers.update(bearer(mine))
    record = drawn(lending)
    where = record["images"][0]["url"]
    answer = lending.get(where)
    assert (answer.status_code, answer.content) == (REDIRECTED, b"")
    assert answer.headers["cache-control"] == "no-store"
    elsewhere = answer.headers["location"]
    assert parse_qs(urlsplit(elsewhere).query)["X-Amz-Expires"] == ["60"]
    lent = httpx.get(elsewhere)
    assert hashlib.sha256(lent.content).hexdigest() == record["images"][0]["sha256"]
    assert lent.headers["content-type"] == "image/png"
    forged = httpx.get(elsewhere.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"))
    assert forged.status_code == 403
    assert lending.get(where, headers=bearer(other)).status_code == 404
    assert lending.get(where, headers={"Authorization": "Bearer nobody"}).status_code == 401
    etag = {"If-None-Match": f'"{record["images"][0]["sha256"]}"'}
    assert lending.get(where, headers=etag).status_code == 304


def test_a_page_of_our_own_and_a_bare_answer_are_given_the_bytes(lending: httpx.Client) -> None:
    record = drawn(lending)
    page = {"Sec-Fetch-Site": "same-origin"}
    assert lending.get(record["images"][0]["url"], headers=page).status_code == 200
    bare = lending.post("/v1/generations", json=BODY, headers=WAIT | {"Accept": "image/png"})
    assert (bare.status_code, bare.headers["content-type"]) == (200, "image/png")


def test_the_command_follows_to_the_bucket(lending: httpx.Client, tmp_path: Path) -> None:
    image = drawn(lending)["images"][0]
    lending.headers.update(bearer("dr_that-must-not-go-there"))  # S3 would refuse two signatures
    save(lending, image, tmp_path / "out.png", Console(quiet=True))
    assert hashlib.sha256((tmp_path / "out.png").read_bytes()).hexdigest() == image["sha256"]


def test_a_store_that_gives_out_no_urls_is_read_through_us(
    server: RedisServer, redis: Redis, tmp_path: Path
) -> None:
    with served(server, str(tmp_path / "images"), tmp_path, presigned_seconds=60) as client:
        assert client.get(drawn(client)["images"][0]["url"]).status_code == 200


def test_a_large_picture_is_put_whole(bucket: str, shared_s3: S3Server) -> None:
    store, data = open_store(bucket, Path()), bytes(12 * 2**20)
    key = f"{new_generation_id()}/0-e.png"
    store.put(key, data)
    assert store.read(key) == data
    assert not list(shared_s3.folder(".nanio").rglob("parts/*")), "no upload in parts"
    head = obstore.get(store._store, key).attributes
    assert head["Content-Type"] == "image/png"
