"""Whether Redis lets us in: what it refuses, told to who runs this. Knows no keys but those it is
asked about; a password is never repeated."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from server.broker import keys
from server.broker.dial import BadUrl, dial
from server.broker.patience import TIMEOUT_SECONDS
from server.broker.sentinels import NoMaster
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
            if (words := refusal(_heard(client, error), url)) is not None:
                raise DarkroomError(words) from error
            return None


def client_of(url: str, *, timeout: float) -> redis.Redis:
    """A client; it does not connect yet.

    Raises:
        DarkroomError: the URL is none. It may hold a password, so it is not repeated.
    """
    try:
        return dial(url, socket_timeout=timeout, socket_connect_timeout=timeout)
    except BadUrl as error:
        raise DarkroomError(f"the URL of Redis ({SETTING}) {error}") from error
    except ValueError as error:
        raise DarkroomError(
            f"the URL of Redis ({SETTING}) cannot be read; in a user or a password write each "
            "character that is no letter and no digit as %XX, such as %40 for @"
        ) from error


def refusal(error: Exception, url: str) -> str | None:
    """What to do about it, where Redis answers but does not let us in; None for all else."""
    where, user = _place(url)
    if (fault := _of_tls(error)) is not None:
        return f"Redis at {where} {_distrust(fault)} (the URL is in {SETTING})"
    if isinstance(error, NoMaster):
        return error.remedy
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


def _heard(client: redis.Redis, error: Exception) -> Exception:
    """Why it has ended a connection by TLS: it has said so, but who speaks first does not hear it.
    So it is with the want of a certificate."""
    if not isinstance(_behind(error), ssl.SSLEOFError):
        return error
    try:
        connection: Any = client.connection_pool.make_connection()
        with contextlib.closing(connection._connect()) as told:
            told.recv(1)
    except (redis.RedisError, OSError) as heard:
        return heard
    return error


def _of_tls(error: Exception) -> ssl.SSLError | None:
    """What of TLS is behind it; a connection that was cut off is an outage like any other."""
    fault = _behind(error)
    return None if isinstance(fault, ssl.SSLEOFError) else fault


def _behind(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _distrust(fault: ssl.SSLError) -> str:
    """What is wrong, and what to do about it."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that is not trusted: {fault.verify_message}; name the file of "
            "the authority that has signed it as ?ssl_ca_certs=/path/to/ca.crt, and the host as "
            "its certificate does"
        )
    if "CERTIFICATE" in (fault.reason or ""):
        return (
            f"does not trust us ({fault.reason}); if it wants a certificate of ours, name one "
            "that its authority has signed as ?ssl_certfile=/path/to/our.crt&ssl_keyfile=…"
        )
    return f"cannot be spoken to by TLS: {fault.reason or fault}; rediss:// is TLS, redis:// is not"


def _place(url: str) -> tuple[str, str]:
    """Where it is, without who goes there; and who."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    where = parts.path if parts.scheme == "unix" else host or "localhost"
    return unquote(where), unquote(parts.username or "") or "default"
