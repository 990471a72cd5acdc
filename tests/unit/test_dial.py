"""From URLs to connections, without connecting."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
import redis.asyncio

from server.broker.dial import BadUrl, dial, dial_async
from server.broker.entrance import client_of, refusal
from server.broker.pool import pooled, subscribing
from server.broker.sentinels import (
    AsyncMasterConnection,
    AsyncMasterTLSConnection,
    MasterConnection,
    MasterTLSConnection,
    NoMaster,
    Place,
    Sentinels,
    replaced,
)
from server.config import Settings
from server.errors import DarkroomError
from server.workers.link import connect

SECRET = "p%40ss"
SENTINELS = f"redis+sentinel://shop:{SECRET}@one:1,two,[::1]:3/darkroom/2"


def sentinels(client: redis.Redis) -> Sentinels:
    found = client.connection_pool.connection_kwargs["sentinels"]
    assert isinstance(found, Sentinels)
    return found


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h:1/2", redis.Connection),
        ("rediss://h:1/2", redis.SSLConnection),
        ("unix:///run/r.sock?db=2", redis.UnixDomainSocketConnection),
        (SENTINELS, MasterConnection),
        (SENTINELS.replace("redis+", "rediss+"), MasterTLSConnection),
    ],
)
def test_each_scheme_has_its_kind_of_connection(url: str, kind: type) -> None:
    Settings(redis=url)
    for client in (dial(url), connect(url), client_of(url, timeout=1)):
        pool = client.connection_pool
        assert type(pool.make_connection()) is kind
        assert pool.connection_kwargs["db"] == 2


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h:1", redis.asyncio.Connection),
        ("rediss://h:1", redis.asyncio.SSLConnection),
        (SENTINELS, AsyncMasterConnection),
        (SENTINELS.replace("redis+", "rediss+"), AsyncMasterTLSConnection),
    ],
)
def test_so_it_is_on_an_event_loop(url: str, kind: type) -> None:
    for client in (dial_async(url), pooled(url), subscribing(url)):
        assert type(client.connection_pool.make_connection()) is kind


def test_sentinels_are_read_with_their_ports_and_a_password_of_their_own() -> None:
    client = dial(f"{SENTINELS}?sentinel_username=us&sentinel_password={SECRET}")
    asked = sentinels(client)
    assert asked._places == (Place("one", 1), Place("two", 26379), Place("::1", 3))
    assert asked._master == "darkroom"
    assert (asked._options["username"], asked._options["password"]) == ("us", "p@ss")
    given = client.connection_pool.connection_kwargs
    assert (given["username"], given["password"]) == ("shop", "p@ss")
    assert "password" not in sentinels(dial(SENTINELS))._options, "that of Redis is not told them"


def test_sentinels_are_spoken_to_by_tls_with_the_same_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").touch()
    asked = sentinels(dial(f"rediss+sentinel://one/darkroom?ssl_ca_certs={tmp_path / 'ca.crt'}"))
    assert asked._tls
    assert asked._options["ssl_ca_certs"] == str(tmp_path / "ca.crt")


def test_certificates_are_checked_unless_the_url_says_otherwise() -> None:
    connection = dial("rediss://h").connection_pool.make_connection()
    assert (connection.cert_reqs, connection.check_hostname) == (2, True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://shop:pw@h?socket_timeout=9", "none of client_name, db, password, username"),
        ("redis://shop:pw@h?ssl_ca_certs=/a", "options of TLS"),
        ("rediss://shop:pw@h?ssl_ca_certs=/none/ca.crt", "ssl_ca_certs that cannot be read"),
        ("rediss://shop:pw@h?ssl_cert_reqs=no", "none of required, optional, none"),
        ("redis+sentinel://shop:pw@one", "names no Sentinels, or no master"),
        ("redis+sentinel://shop:pw@/darkroom", "names no Sentinels, or no master"),
        ("redis://h?sentinel_password=pw", "none of"),
        ("redis://shop:1/pw@h:6379/0", "in a password are written as %XX"),
        ("redis://shop:1#pw@h:6379/0", "in a password are written as %XX"),
        ("redis://shop:1?pw@h:6379/0", "none of"),
        ("redis://shop:pw@h/first", "ends in no number of a database"),
        ("redis://shop:pw@h/-1", "ends in no number of a database"),
        ("redis+sentinel://shop:pw@one/darkroom/-1", "ends in no number of a database"),
        ("redis+sentinel://shop:pw@one/darkroom/0/0", "ends in no number of a database"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_repeating_it(url: str, words: str) -> None:
    with pytest.raises(BadUrl, match=words):
        dial(url)
    with pytest.raises(DarkroomError, match=rf"the URL of Redis \(.*{words}") as told:
        client_of(url, timeout=1)
    assert "pw" not in told.value.message


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://one:pw/darkroom",
        "redis+sentinel://one/darkroom/pw",
        "unix+sentinel://one/pw",
        "redis+sentinels://one/pw",
        "redis://shop:pw:pw@h:pw",
    ],
)
def test_one_that_cannot_be_read_is_not_repeated_either(url: str) -> None:
    with pytest.raises(DarkroomError) as told:
        client_of(url, timeout=1)
    assert "pw" not in told.value.message


@pytest.mark.parametrize(
    ("said", "true"),
    [
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), True),
        (redis.ResponseError("Error running script: -READONLY You can't write"), True),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (redis.ResponseError("OOM command not allowed"), False),
    ],
)
def test_a_master_that_is_none_any_more_is_known_by_its_words(
    said: redis.ResponseError, true: bool
) -> None:
    assert replaced(said) is true


def test_sentinels_that_are_away_need_patience_and_those_that_refuse_need_an_operator() -> None:
    assert refusal(NoMaster("nobody answers", None), SENTINELS) is None
    assert refusal(NoMaster("who?", "name a password"), SENTINELS) == "name a password"
