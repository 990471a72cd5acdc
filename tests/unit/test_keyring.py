"""`darkroom keys`: made, listed and revoked, whether anything runs or not."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from server.broker import Broker, accounts, keys
from server.embedded import EmbeddedRedis
from tests.builders import a_spec
from tests.redis_server import RedisServer

KEY = r"dr_[0-9a-f]{12}_[A-Za-z0-9_-]{43}"
Darkroom = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def darkroom(server: RedisServer, redis: Redis, tmp_path: Path) -> Darkroom:
    """Runs the command over a Redis that is there."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        plain = {name: v for name, v in os.environ.items() if not name.startswith("DARKROOM_")}
        return subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            cwd=tmp_path,
            env=plain | {"COLUMNS": "200", "DARKROOM_REDIS": server.url} | env,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_key_goes_alone_into_a_pipe(darkroom: Darkroom, redis: Redis) -> None:
    made = darkroom("keys", "create", "shop", "--quiet")
    assert re.fullmatch(KEY + "\n", made.stdout), made.stderr
    assert made.stderr == ""
    [account] = accounts.every(redis)
    assert (account.name, account.scopes) == ("shop", (accounts.Scope.GENERATE,))
    assert accounts.is_locked(redis)


def test_that_the_first_key_locks_the_house_is_said_even_if_the_key_goes_into_a_file(
    darkroom: Darkroom,
) -> None:
    first, second = (darkroom("keys", "create", name) for name in ("one", "two"))
    assert first.stderr == "It is the first one: from now on every door wants a key.\n"
    assert second.stderr == ""
    for made in (first, second):
        assert re.fullmatch(KEY + "\n", made.stdout)


def test_what_a_key_may_do_is_said_when_it_is_made(darkroom: Darkroom, redis: Redis) -> None:
    options = (
        "--scope read --scope generate --checkpoint demo --checkpoint sd-v1-5 --expires 30d "
        "--weight 2 --rate 60 --concurrent 4 --queued-seconds 90 --daily-seconds 3600"
    )
    assert darkroom("keys", "create", "shop", *options.split()).returncode == 0
    [account] = accounts.every(redis)
    assert account.scopes == (accounts.Scope.READ, accounts.Scope.GENERATE)
    assert account.checkpoints == ("demo", "sd-v1-5")
    assert account.expires_at == pytest.approx(account.created_at + 30 * 86_400, abs=5)
    assert (account.weight, account.requests_per_minute, account.max_concurrent) == (2, 60, 4)
    assert (account.max_queued_seconds, account.daily_seconds) == (90, 3600)
    said = darkroom("keys", "list").stdout
    for part in (account.id, "shop", "good until", "read generate", "demo sd-v1-5", "4 at once"):
        assert part in said


def queued(server: RedisServer, owner: str) -> str:
    """A generation of this owner, accepted as a gateway does it."""

    async def act() -> str:
        broker = Broker(server.url, retention_seconds=600)
        try:
            generation, _ = await broker.submit(a_spec(), owner=owner, works=(2.5,))
        finally:
            await broker.close()
        return generation.id

    with Redis.from_url(server.url) as redis:
        redis.set(keys.served("demo"), "1")
    return asyncio.run(act())


def test_a_list_says_what_each_key_has_and_when_it_was_last_used(
    darkroom: Darkroom, redis: Redis, server: RedisServer
) -> None:
    busy = darkroom("keys", "create", "busy", "--daily-seconds", "3600").stdout[3:15]
    idle = darkroom("keys", "create", "idle").stdout[3:15]
    ids = [queued(server, busy) for _ in range(3)]
    redis.hset(keys.generation(ids[0]), "status", "running")
    redis.set(keys.spent(busy, time.time()), "812.25")
    redis.zadd(keys.SEEN, {busy: 1_700_000_000 // 60 * 60})
    said = darkroom("keys", "list").stdout
    line = next(line for line in said.splitlines() if busy in line)
    for part in ("1 running, 2 queued", "812.2 of 3600 s", "2023-11-14 22:13"):
        assert part in line
    assert re.search(rf"{idle} +idle .* - +0.0 s +never", said)


def test_a_program_gets_the_list_as_the_api_has_it(
    darkroom: Darkroom, redis: Redis, server: RedisServer
) -> None:
    key = darkroom("keys", "create", "shop", "--concurrent", "4").stdout.strip()
    queued(server, key[3:15])
    said = darkroom("keys", "list", "--json").stdout
    [found] = json.loads(said)["accounts"]
    account = found["account"]
    assert (account["id"], account["state"], account["last_used_at"]) == (key[3:15], "good", None)
    assert (found["queued"], found["running"], found["queued_seconds"]) == (1, 0, {"demo": 2.5})
    assert found["limits"]["generations"] == 4
    assert key[16:] not in said
    redis.flushall()
    assert json.loads(darkroom("keys", "list", "--json").stdout) == {"accounts": []}


def test_a_key_that_was_revoked_says_since_when(darkroom: Darkroom) -> None:
    id = darkroom("keys", "create", "shop").stdout[3:15]
    first, second = (darkroom("keys", "revoke", id) for _ in range(2))
    assert first.stdout == f"shop, {id}: revoked\n"
    assert re.fullmatch(rf"shop, {id}: already revoked since [-0-9]+ [:0-9]+\n", second.stdout)
    assert (first.returncode, second.returncode) == (0, 0)


def test_what_a_revoked_key_has_queued_can_be_canceled(
    darkroom: Darkroom, redis: Redis, server: RedisServer
) -> None:
    mine, other = (darkroom("keys", "create", name).stdout[3:15] for name in ("me", "other"))
    waits, runs, theirs = queued(server, mine), queued(server, mine), queued(server, other)
    redis.hset(keys.generation(runs), "status", "running")
    said = darkroom("keys", "revoke", mine, "--cancel").stdout
    assert said.splitlines()[1] == "canceled 1 that waited; asked 1 that run to stop"
    assert redis.hget(keys.generation(waits), "status") == b"canceled"
    assert redis.hget(keys.generation(runs), "cancel_requested") == b"1"
    assert redis.hget(keys.generation(theirs), "status") == b"queued"
    assert redis.lrange("rq:queue:demo", 0, -1) == [runs.encode(), theirs.encode()]


def test_a_list_says_which_keys_are_good_and_shows_none(darkroom: Darkroom, redis: Redis) -> None:
    assert "There are no keys" in darkroom("keys", "list").stdout
    key = darkroom("keys", "create", "[red]shop").stdout.strip()
    other = darkroom("keys", "create", "other").stdout.strip()
    revoked = darkroom("keys", "revoke", key[3:15])
    assert revoked.stdout == f"[red]shop, {key[3:15]}: revoked\n"
    said = darkroom("keys", "list").stdout
    assert re.search(rf"{key[3:15]} +\[red\]shop +revoked", said)
    assert re.search(rf"{other[3:15]} +other +good", said)
    assert key[16:] not in said
    assert other[16:] not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--scope write", "is none of read, generate, admin"),
        ("--expires soon", "such as 30d"),
        ("--expires 0d", "such as 30d"),
        ("--checkpoint nothing", "there is no checkpoint 'nothing'"),
        ("--expires 99999w", "such as 30d"),
        ("--weight 0", "0.01"),
        ("--daily-seconds inf", "1000000000"),
        ("--queued-seconds 1e400", "1000000000"),
        ("--rate 99999999999999999999", "1000000000"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    darkroom: Darkroom, redis: Redis, options: str, said: str
) -> None:
    refused = darkroom("keys", "create", "shop", *options.split())
    assert refused.returncode != 0
    assert said in " ".join(refused.stderr.replace("│", " ").split())
    assert accounts.every(redis) == []
    assert not accounts.is_locked(redis)


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "\x1b[31mred", "n" * 101, "\udcff"])
def test_a_name_is_one_line_that_can_be_shown(darkroom: Darkroom, redis: Redis, name: str) -> None:
    refused = darkroom("keys", "create", name)
    assert (refused.returncode, "NAME: 1 to 100 characters" in refused.stderr) == (2, True)
    assert accounts.every(redis) == []
    assert not accounts.is_locked(redis)


def test_who_is_not_there_cannot_be_revoked(darkroom: Darkroom) -> None:
    refused = darkroom("keys", "revoke", "0" * 12)
    assert (refused.returncode, "darkroom keys list" in refused.stderr) == (1, True)


def test_keys_are_kept_in_the_data_directory_where_nothing_runs(
    darkroom: Darkroom, tmp_path: Path
) -> None:
    here = ("--data-dir", str(tmp_path / "data"))
    key = darkroom("keys", "create", "me", *here, DARKROOM_REDIS="").stdout
    assert key[3:15] in darkroom("keys", "list", *here, DARKROOM_REDIS="").stdout


@pytest.mark.parametrize("folder", ["data", "a-long-name" * 10])
def test_keys_are_made_in_the_redis_that_serve_has_started(
    darkroom: Darkroom, tmp_path: Path, folder: str
) -> None:
    embedded = EmbeddedRedis(tmp_path / folder)
    embedded.start()
    try:
        here = ("--data-dir", str(tmp_path / folder))
        key = darkroom("keys", "create", "me", *here, DARKROOM_REDIS="").stdout
        assert re.fullmatch(KEY + "\n", key)
        with Redis.from_url(embedded.url) as redis:
            assert [account.id for account in accounts.every(redis)] == [key[3:15]]
    finally:
        embedded.stop()


def test_other_machines_are_let_in_once_there_is_a_key(darkroom: Darkroom) -> None:
    refused = darkroom("gateway", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 1
    assert "darkroom keys create" in refused.stderr
    assert "--insecure-no-auth" in refused.stderr


def test_a_key_that_is_none_is_not_repeated(darkroom: Darkroom) -> None:
    refused = darkroom("queue", "--key", "my secret", "--server", "http://127.0.0.1:9")
    assert refused.returncode == 1
    assert "secret" not in refused.stderr
