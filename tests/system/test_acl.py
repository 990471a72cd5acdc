"""The Redis users of docs/operations.md: with them everything works, and nothing else does."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from server.broker import accounts, keys
from server.config import Settings
from server.embedded import find_redis_server
from server.errors import DarkroomError
from tests.api.house import bearer, gateway, wait_until
from tests.fuzz.worker import simulated
from tests.redis_server import RedisServer

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SECRET = "not-a-secret"
DANGEROUS = (
    "FLUSHALL",
    "CONFIG GET dir",
    "KEYS *",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "MODULE LIST",
    "ACL LIST",
    "SLAVEOF NO ONE",
    "MONITOR",
    "CLIENT KILL TYPE normal",
    "SET foreign 1",
    "GET foreign",
)


def users() -> list[str]:
    """The ACL rules of the page, with a password."""
    rules = re.findall(r"^user \S+ on .*$", PAGE.read_text(), re.MULTILINE)
    assert len(rules) == 3
    return [rule.replace(">…", f">{SECRET}") for rule in rules]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer(find_redis_server()[0])
    server.start()
    with Redis.from_url(server.url) as redis:
        if int(redis.info("server")["redis_version"].split(".")[0]) < 7:  # type: ignore[index]
            server.close()
            pytest.skip("Redis 6.2 knows no `%R~`")
        for rule in users():
            redis.execute_command("ACL SETUSER", *rule.split()[1:])
    yield server
    server.close()


def url(server: RedisServer, user: str) -> str:
    return f"unix://{user}:{SECRET}@{server.socket}"


def darkroom(server: RedisServer, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, as this user of Redis."""
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        env=os.environ | {"DARKROOM_REDIS": url(server, user)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def client(server: RedisServer, tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a gateway, with a worker, each as the user that the page gives it."""
    settings = Settings(redis=url(server, "worker"), data_dir=tmp_path, lease_seconds=0.9)
    worker = simulated(settings, "demo")
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        with gateway(url(server, "gateway"), tmp_path) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            yield client
    finally:
        worker.request_stop()
        thread.join(20)


def test_gateways_and_workers_can_do_all_they_do(client: httpx.Client, server: RedisServer) -> None:
    body = {"prompt": "a red circle", "num_inference_steps": 3}
    waiting = {"Prefer": "wait=5", "Idempotency-Key": "one"}
    for _ in range(2):
        record = client.post("/v1/generations", json=body, headers=waiting).json()
    assert record["status"] == "succeeded"
    assert "event: done" in client.get(record["urls"]["events"]).text
    assert client.get("/v1/generations").json()["generations"]
    slow = client.post("/v1/generations", json=body | {"num_inference_steps": 150}).json()
    client.post(slow["urls"]["cancel"])
    assert client.delete(record["urls"]["self"]).status_code == 204
    for path in ("/v1/queue", "/v1/usage", "/v1/capabilities", "/sdapi/v1/progress"):
        assert client.get(path).status_code == 200
    client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 1})
    drawn = client.post("/sdapi/v1/txt2img", json={"prompt": "x", "steps": 2})
    assert drawn.status_code == 200
    made = darkroom(
        server, "operator", "keys", "create", "shop", "--scope", "admin", "--rate", "90"
    )
    key = made.stdout.strip()
    wait_until(lambda: client.get("/v1/queue").status_code == 401)
    drawn = client.post("/v1/generations", json=body, headers=bearer(key) | waiting)
    assert drawn.json()["status"] == "succeeded"
    [known] = client.get("/v1/usage/accounts", headers=bearer(key)).json()["accounts"]
    assert known["account"]["id"] == key[3:15]
    revoked = darkroom(server, "operator", "keys", "revoke", key[3:15], "--cancel")
    assert (revoked.returncode, revoked.stderr) == (0, "")
    assert client.get("/v1/queue", headers=bearer(key)).status_code == 401
    assert key[3:15] in darkroom(server, "operator", "keys", "list").stdout
    with Redis.from_url(server.url) as admin:
        denied: Any = admin.execute_command("ACL LOG")
    told = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in denied]
    # What clients say of themselves is no loss; before 7.2 it cannot even be allowed.
    assert [entry for entry in told if not entry[b"object"].startswith(b"client")] == []


@pytest.mark.parametrize("user", ["gateway", "worker"])
def test_who_takes_one_over_cannot_make_a_key(server: RedisServer, user: str) -> None:
    refused = darkroom(server, user, "keys", "create", "me", "--scope", "admin")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"does not let the user '{user}' do this" in refused.stderr
    assert SECRET not in refused.stderr
    assert "Traceback" not in refused.stderr
    with Redis.from_url(server.url) as admin:
        assert admin.keys("*") == []


@pytest.mark.parametrize("user", ["gateway", "worker"])
def test_no_way_around_leads_to_a_key(server: RedisServer, user: str) -> None:
    with Redis.from_url(server.url) as admin:
        account, *_ = accounts.create(admin, "me", scopes=(accounts.Scope.READ,))
        before = {name: admin.dump(name) for name in admin.keys("*")}
        mine = keys.account(account.id)
        with Redis.from_url(url(server, user)) as redis:
            redis.hset("rq:a", "about", "forged")
            redis.sadd("rq:b", "forged")
            script = redis.script_load("return redis.call('HSET', ARGV[1], 'about', 'forged')")
            for command in (
                ("HSET", mine, "about", "forged"),
                ("HDEL", mine, "revoked_at"),
                ("RENAME", "rq:a", mine),
                ("COPY", "rq:a", mine, "REPLACE"),
                ("SORT", "rq:b", "ALPHA", "STORE", mine),
                ("SUNIONSTORE", keys.ACCOUNTS, "rq:b"),
                ("DEL", keys.LOCKED),
                ("GETDEL", keys.LOCKED),
                ("EXPIRE", keys.LOCKED, "1"),
                ("RENAME", keys.LOCKED, "rq:c"),
                ("RESTORE", mine, "0", before[mine.encode()], "REPLACE"),
                ("EVALSHA", script, "0", mine),
            ):
                with pytest.raises(ResponseError):
                    redis.execute_command(*command)
            redis.delete("rq:a", "rq:b")
        assert {name: admin.dump(name) for name in admin.keys("*")} == before


@pytest.mark.parametrize("user", ["gateway", "worker"])
def test_every_key_but_those_of_accounts_can_be_written(server: RedisServer, user: str) -> None:
    guarded = {keys.ACCOUNTS, keys.LOCKED, keys.account("x")}
    with Redis.from_url(server.url) as admin:
        for name in every_key():
            can = [_can(admin, user, *asked) for asked in (("SET", name, "1"), ("GET", name))]
            mine = [False, user == "gateway"] if name in guarded else [True, True]
            assert can == mine, name


def every_key() -> list[str]:
    """One of each kind that `broker.keys` knows, and of those that are built upon them."""
    found = [value for value in vars(keys).values() if str(value).startswith("darkroom:")]
    for function in (each for each in vars(keys).values() if inspect.isfunction(each)):
        parameters = inspect.signature(function).parameters.values()
        found.append(
            function(*(1 if p.annotation in ("int", "float") else "x" for p in parameters))
        )
    assert len(found) > 30
    return [*found, keys.line("x") + ":of:x", keys.RATE + "/x", "rq:queue:x"]


def _can(admin: Redis, user: str, *command: str) -> bool:
    try:
        said: Any = admin.execute_command("ACL DRYRUN", user, *command)
    except ResponseError:  # so do some versions say no
        return False
    return bool(said == b"OK")


@pytest.mark.parametrize(
    ("user", "arguments"),
    [
        ("nobody", ("gateway", "--port", "0")),
        ("nobody", ("worker", "--checkpoint", "demo")),
        ("nobody", ("serve", "--port", "0")),
        ("nobody", ("keys", "list")),
        ("worker", ("gateway", "--port", "0")),
    ],
)
def test_who_is_not_let_in_is_told_so_at_once(
    server: RedisServer, tmp_path: Path, user: str, arguments: tuple[str, ...]
) -> None:
    refused = darkroom(server, user, *arguments, "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert f"the user '{user}'" in refused.stderr
    assert server.socket in refused.stderr
    assert "DARKROOM_REDIS" in refused.stderr
    assert SECRET not in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_redis_that_wants_a_password_is_told_from_one_that_is_away(server: RedisServer) -> None:
    with Redis.from_url(server.url) as admin:
        admin.execute_command("ACL SETUSER", "default", "off")
    words = "wants a user and a password; name them in DARKROOM_REDIS"
    with pytest.raises(DarkroomError, match=words):
        accounts.locked_at(server.url)
    server.kill()
    assert accounts.locked_at(server.url) is None


@pytest.mark.parametrize("user", ["gateway", "worker"])
def test_they_can_do_nothing_dangerous_and_reach_no_foreign_key(
    server: RedisServer, user: str
) -> None:
    with Redis.from_url(url(server, user)) as redis:
        assert redis.ping()
        for command in DANGEROUS:
            with pytest.raises(NoPermissionError):
                redis.execute_command(*command.split())
