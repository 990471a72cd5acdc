"""Whether Redis lets us in: what it refuses, told to who runs this. Knows no keys but those it is
asked about; a password is never repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from server.broker import keys
from server.broker.patience import TIMEOUT_SECONDS
from server.errors import DarkroomError

T = TypeVar("T")

SETTING = "--redis or DARKROOM_REDIS"


def expect_worker(url: str, checkpoint: str) -> None:
    """Let a worker of this checkpoint in, as far as can be told; a Redis that does not answer is
    waited for later.

    Raises:
        DarkroomError: it does not let us in, or the URL is none; says what to do.
    """
    entered(url, lambda client: client.exists(keys.workers(checkpoint)))


def entered(url: str, ask: Callable[[redis.Redis], T]) -> T | None:
    """What the Redis at this URL says; None where it does not answer.

    Raises:
        DarkroomError: it does not let us in, or the URL is none; says what to do.
    """
    with contextlib.closing(client_of(url, timeout=TIMEOUT_SECONDS)) as client:
        try:
            return ask(client)
        except (redis.RedisError, OSError) as error:
            if (words := refusal(error, url)) is not None:
                raise DarkroomError(words) from error
            return None


def client_of(url: str, *, timeout: float) -> redis.Redis:
    """A client; it does not connect yet.

    Raises:
        DarkroomError: the URL is none. It may hold a password, so it is not repeated.
    """
    try:
        return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
    except ValueError as error:
        raise DarkroomError(
            f"the URL of Redis ({SETTING}) cannot be read; in a user or a password write each "
            "character that is no letter and no digit as %XX, such as %40 for @"
        ) from error


def refusal(error: Exception, url: str) -> str | None:
    """What to do about it, where Redis answers but does not let us in; None for all else."""
    where, user = _place(url)
    if isinstance(error, NoPermissionError):
        return (
            f"Redis at {where} does not let the user {user!r} do this ({error}); gateways, workers "
            "and `darkroom keys` each have a user of their own, and docs/operations.md says what "
            f"each needs: look at who {SETTING} names, and at `ACL GETUSER {user}` there"
        )
    if not isinstance(error, AuthenticationError):
        return None
    if "@" not in urlsplit(url).netloc and "password=" not in url:
        return (
            f"Redis at {where} wants a user and a password; name them in DARKROOM_REDIS, as "
            "redis://USER:PASSWORD@HOST:6379/0 or unix://USER:PASSWORD@/run/redis.sock"
        )
    return (
        f"Redis at {where} does not take the password for the user {user!r}, or has no such user; "
        f"look at {SETTING}, and at `ACL LIST` there"
    )


def _place(url: str) -> tuple[str, str]:
    """Where it is, without who goes there; and who."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    where = parts.path if parts.scheme == "unix" else host or "localhost"
    return unquote(where), unquote(parts.username or "") or "default"
