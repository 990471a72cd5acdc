"""From the URL of a Redis to connections, for all who connect.

redis://USER:PASSWORD@HOST:6379/0             by TCP; rediss:// by TLS
unix://USER:PASSWORD@/run/redis.sock?db=0     by a socket
redis+sentinel://USER:PASSWORD@HOST1:26379,HOST2:26379/MASTER/0
                                              to whoever the Sentinels say is the master, now and
                                              after each failover; rediss+sentinel:// by TLS to both

Knows no keys. A URL may hold a password, so none is ever repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
from redis.asyncio.connection import parse_url as parse_async_url
from redis.connection import parse_url

from server.broker.sentinels import (
    AsyncMasterConnection,
    AsyncMasterTLSConnection,
    MasterConnection,
    MasterTLSConnection,
    Place,
    Sentinels,
)

SENTINEL = "+sentinel"
SENTINEL_PORT = 26379
FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
TLS = FILES | {"ssl_ca_path", "ssl_cert_reqs", "ssl_check_hostname", "ssl_password"}
PLAIN = frozenset({"client_name", "db", "password", "username"})
DATABASE = re.compile(r"(/\d*/?)?", re.ASCII)
ESCAPED = "special characters in a password are written as %XX"
OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}


class BadUrl(ValueError):
    """The URL is none, or names what is not there. The message goes on where "the URL" was said."""


# Any: redis-py's stubs give every reply as bytes | str, whatever the client decodes.
def dial(url: str, **options: Any) -> redis.Redis:
    """A client for threads; it does not connect yet. `options` are of redis-py's connections.

    Raises:
        BadUrl: says what is wrong with it.
        ValueError: it cannot be read.
    """
    made = _options(url, parse_url, MasterConnection, MasterTLSConnection)
    return redis.Redis.from_pool(redis.ConnectionPool(**(options | made)))


def dial_async(
    url: str,
    pool: type[redis.asyncio.ConnectionPool] = redis.asyncio.ConnectionPool,
    **options: Any,
) -> Any:
    """The same for an event loop, with a pool of this class."""
    made = _options(url, parse_async_url, AsyncMasterConnection, AsyncMasterTLSConnection)
    return redis.asyncio.Redis.from_pool(pool(**(options | made)))


def _options(
    url: str, parse: Callable[[str], Any], follows: type[Any], follows_by_tls: type[Any]
) -> dict[str, Any]:
    parts = urlsplit(url)
    scheme, sentinel, more = parts.scheme.partition(SENTINEL)
    tls, given = scheme == "rediss", dict(parse_qsl(parts.query, keep_blank_values=True))
    if more or (sentinel and scheme not in ("redis", "rediss")):
        raise ValueError("a scheme that nobody knows")
    if not sentinel:
        _ = parts.port  # the usual sign of a password that is not escaped
    if parts.fragment:
        raise BadUrl(f"has a part after a #; {ESCAPED}")
    if not sentinel and scheme != "unix" and not DATABASE.fullmatch(parts.path):
        raise BadUrl(f"ends in no number of a database; {ESCAPED}")
    _check(given, PLAIN | (TLS if tls else set()) | (OF_SENTINELS.keys() if sentinel else set()))
    if not sentinel:
        return dict(parse(url))
    master, db = _master(parts)
    asked = {name: given.pop(option) for option, name in OF_SENTINELS.items() if option in given}
    user, at, hosts = parts.netloc.rpartition("@")
    made = dict(parse(f"{scheme}://{user}{at}/{db}?{urlencode(given)}"))
    asked |= {name: value for name, value in made.items() if name in TLS}
    sentinels = Sentinels(_places(hosts), master, tls=tls, options=asked)
    return made | {
        "connection_class": follows_by_tls if tls else follows,
        "sentinels": sentinels,
    }


def _check(given: Mapping[str, str], known: frozenset[str] | set[str]) -> None:
    """redis-py would take what it does not know for an option of each connection, and fail then."""
    if TLS & given.keys() - known:
        raise BadUrl("has options of TLS, but does not begin with rediss")
    if given.keys() - known:
        raise BadUrl(f"has an option that is none of {', '.join(sorted(known))}")
    if given.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise BadUrl("has an ssl_cert_reqs that is none of required, optional, none")
    for name in FILES & given.keys():
        try:
            open(given[name], "rb").close()
        except (OSError, ValueError) as error:
            raise BadUrl(f"names a file as {name} that cannot be read: {error}") from error


def _master(parts: SplitResult) -> tuple[str, int]:
    """The name of the master, and the number of its database."""
    name, _, db = parts.path.removeprefix("/").partition("/")
    if not name or not parts.netloc.rpartition("@")[2]:
        raise BadUrl(
            "names no Sentinels, or no master: write it as "
            "redis+sentinel://USER:PASSWORD@HOST1:26379,HOST2:26379/MASTER/0"
        )
    if not DATABASE.fullmatch(f"/{db}"):
        raise BadUrl(f"ends in no number of a database; {ESCAPED}")
    return name, int(db.rstrip("/") or 0)


def _places(hosts: str) -> list[Place]:
    split = [urlsplit(f"//{each}") for each in hosts.split(",")]
    return [Place(each.hostname or "localhost", each.port or SENTINEL_PORT) for each in split]
