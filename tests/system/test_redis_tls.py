"""Redis by TLS, as a user with a password and a certificate; and what is said where that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from server.broker.entrance import entered
from server.config import Settings
from server.errors import DarkroomError
from tests.api.house import gateway, wait_until
from tests.fuzz.worker import simulated
from tests.redises import HOST, MASTER, Authority, Node, expect_tls

SECRET = "not-a-secret"
USERS = ("user default off", f"user shop on >{SECRET} ~* &* +@all")
BODY = {"prompt": "a red circle", "num_inference_steps": 3}


class Secure(NamedTuple):
    """A Redis that wants a certificate of who comes, and who has signed its own and ours."""

    redis: Node
    authority: Authority
    ours: Path
    stranger: Path

    def url(self, place: str = "", *, to: str = "rediss", path: str = "0", ca: str = "") -> str:
        """`ca`: the file of another authority than the one that signed it."""
        where, trusted = place or self.redis.place, ca or str(self.authority.file)
        ours = f"ssl_certfile={self.ours}&ssl_keyfile={self.ours}"
        return f"{to}://shop:{SECRET}@{where}/{path}?ssl_ca_certs={trusted}&{ours}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    expect_tls(folder)
    authority, other = Authority(folder), Authority(folder)
    redis = Node(folder, *USERS, certificate=authority.issue(HOST), authority=authority)
    redis.start()
    yield Secure(redis, authority, authority.issue("shop"), other.file)
    redis.kill()


@contextmanager
def served(url: str, folder: Path) -> Iterator[httpx.Client]:
    """A gateway and a worker, whose Redis is there."""
    worker = simulated(Settings(redis=url, data_dir=folder, lease_seconds=0.9), "demo")
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        with gateway(url, folder) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            yield client
    finally:
        worker.request_stop()
        thread.join(20)


def test_gateway_and_worker_draw_by_tls(secure: Secure, tmp_path: Path) -> None:
    with served(secure.url(), tmp_path) as client:
        record = client.post("/v1/generations", json=BODY, headers={"Prefer": "wait=5"}).json()
        assert record["status"] == "succeeded"
        assert "event: done" in client.get(record["urls"]["events"]).text


def test_they_find_the_master_by_tls_and_with_the_sentinels_own_password(
    secure: Secure, tmp_path: Path
) -> None:
    sentinel = Node(
        tmp_path,
        f"requirepass {SECRET}-too",
        f"sentinel monitor {MASTER} {HOST} {secure.redis.port} 1",
        f"sentinel auth-user {MASTER} shop",
        f"sentinel auth-pass {MASTER} {SECRET}",
        certificate=secure.authority.issue(HOST),
        authority=secure.authority,
        sentinel=True,
    ).start()
    url = secure.url(sentinel.place, to="rediss+sentinel", path=MASTER)
    try:
        with pytest.raises(DarkroomError, match=r"the Sentinel at .* does not let us in") as told:
            entered(url, lambda client: client.ping())
        assert "sentinel_password" in told.value.message
        assert SECRET not in told.value.message
        with served(f"{url}&sentinel_password={SECRET}-too", tmp_path) as client:
            record = client.post("/v1/generations", json=BODY, headers={"Prefer": "wait=5"}).json()
            assert record["status"] == "succeeded"
    finally:
        sentinel.kill()


def test_who_does_not_know_the_authority_is_told_so(secure: Secure) -> None:
    with pytest.raises(DarkroomError, match="a certificate that is not trusted") as told:
        entered(secure.url(ca=str(secure.stranger)), lambda client: client.ping())
    assert "ssl_ca_certs" in told.value.message
    assert secure.redis.place in told.value.message
    assert SECRET not in told.value.message


def test_a_certificate_of_another_host_is_not_taken(secure: Secure) -> None:
    elsewhere = f"localhost:{secure.redis.port}"
    with pytest.raises(DarkroomError, match=r"not trusted: Hostname mismatch.*'localhost'"):
        entered(secure.url(elsewhere), lambda client: client.ping())


def test_who_shows_no_certificate_where_one_is_wanted_is_told_so(secure: Secure) -> None:
    with pytest.raises(DarkroomError, match="does not trust us") as told:
        entered(secure.url().partition("&ssl_certfile")[0], lambda client: client.ping())
    assert "ssl_certfile" in told.value.message


def test_the_command_ends_at_once_and_says_why(secure: Secure) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "server", "gateway", "--port", "0"],
        env=os.environ | {"DARKROOM_REDIS": secure.url(ca=str(secure.stranger))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert "a certificate that is not trusted" in refused.stderr
    assert "DARKROOM_REDIS" in refused.stderr
    assert SECRET not in refused.stderr
    assert "Traceback" not in refused.stderr
