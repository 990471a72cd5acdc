"""`darkroom keys`: made, listed and revoked, whether anything runs or not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from server.broker import accounts
from server.embedded import EmbeddedRedis
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
    made = darkroom("keys", "create", "shop")
    assert re.fullmatch(KEY + "\n", made.stdout), made.stderr
    assert made.stderr == ""
    [account] = accounts.every(redis)
    assert (account.name, account.scopes) == ("shop", (accounts.Scope.GENERATE,))
    assert accounts.is_locked(redis)


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
