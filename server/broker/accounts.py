"""Who may use this house: accounts and their keys. Keeps hashes of secrets, never a secret; knows
no HTTP.

A key is `dr_<id>_<secret>`: found by the id, compared by the SHA-256 of its secret. The first key
that is made locks the house: from then on every gateway wants one, also when all are revoked.
Gateways only read what is kept here, so that Redis need not let them write it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Collection
from enum import StrEnum
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.broker import keys
from server.broker.entrance import entered
from server.broker.patience import translated
from server.broker.sightings import Sightings
from server.errors import BrokerUnavailable, NotFound, Unauthenticated

log = logging.getLogger("darkroom.broker")

LOOK_SECONDS = 0.5
"""How often a house without keys is looked at: has it been locked?"""

ACCOUNT_ID = r"[0-9a-f]{12}"
KEY = re.compile(rf"dr_({ACCOUNT_ID})_([A-Za-z0-9_-]{{43}})")
NOBODY = hashlib.sha256(b"").hexdigest()
"""What a secret is compared with where there is no such account: it takes as long."""


class Scope(StrEnum):
    """What a key may be used for. Each holds those before it."""

    READ = "read"
    GENERATE = "generate"
    ADMIN = "admin"


class KeyState(StrEnum):
    """Whether a key opens anything, and if not, why."""

    GOOD = "good"
    REVOKED = "revoked"
    EXPIRED = "expired"


_RANK = {scope: rank for rank, scope in enumerate(Scope)}


class Account(BaseModel):
    """Who a key belongs to, and what they may do. Times are Unix seconds; 0 is no limit."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Owns what is made with its key.")
    name: str
    scopes: tuple[Scope, ...]
    checkpoints: tuple[str, ...] = Field(
        default=(), description="Which it may draw with; none: all."
    )
    weight: float = Field(
        default=1.0, gt=0, description="Its share of turns, beside those of others."
    )
    max_concurrent: int = Field(default=0, description="Generations queued or running at once.")
    max_queued_seconds: float = Field(default=0.0, description="Predicted seconds that may wait.")
    daily_seconds: float = Field(default=0.0, description="Predicted device seconds a day.")
    requests_per_minute: int = 0
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None

    def may(self, needed: Scope) -> bool:
        """Whether one of its scopes is this one, or holds it."""
        return any(_RANK[scope] >= _RANK[needed] for scope in self.scopes)

    def state(self, now: float) -> KeyState:
        """Whether its key opens anything at that time."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        expired = self.expires_at is not None and now >= self.expires_at
        return KeyState.EXPIRED if expired else KeyState.GOOD


LOCAL = Account(id="local", name="local", scopes=(Scope.ADMIN,))
"""Everybody, while the house has no keys: everything is allowed, and nothing counted."""


def create(client: redis.Redis, name: str, **terms: Any) -> tuple[Account, str, bool]:
    """A new account, kept; `terms` are fields of it.

    Returns:
        It, its key, which nothing else knows, and whether this locked the house just now.
    """
    secret = secrets.token_urlsafe(32)
    now = time.time()
    while True:
        id = secrets.token_hex(6)
        account = Account(id=id, name=name, created_at=now, **terms)
        if client.hsetnx(keys.account(id), "about", account.model_dump_json()):
            break
    with client.pipeline(transaction=True) as pipe:
        pipe.hset(keys.account(id), "digest", _digest(secret))
        pipe.zadd(keys.ACCOUNTS, {id: now})
        pipe.setnx(keys.LOCKED, f"{now:.0f}")
        *_, locked = pipe.execute()
    return account, f"dr_{id}_{secret}", bool(locked)


def every(client: redis.Redis) -> list[Account]:
    """All of them, oldest first; those that are revoked, too."""
    ids: Any = client.zrange(keys.ACCOUNTS, 0, -1)
    with client.pipeline(transaction=False) as pipe:
        for id in ids:
            pipe.hgetall(keys.account(id.decode()))
        return [account for raw in pipe.execute() if (account := _account(raw)) is not None]


def revoke(client: redis.Redis, id: str) -> tuple[Account, bool]:
    """From now on its key opens nothing, at any gateway. What it has made is kept.

    Returns:
        It, and whether it was this that revoked it.

    Raises:
        NotFound: there is no such account.
    """
    key = keys.account(id)
    if not client.hexists(key, "about"):
        raise NotFound(f"there is no key {id[:80]!r}; `darkroom keys list` names them")
    now = client.hsetnx(key, "revoked_at", repr(time.time()))
    raw: Any = client.hgetall(key)
    account = _account(raw)
    if account is None:
        raise NotFound(f"what is kept of the key {id} cannot be read; it opens nothing")
    return account, bool(now)


def is_locked(client: redis.Redis) -> bool:
    """Whether a key was ever made here."""
    return bool(client.exists(keys.LOCKED))


def locked_at(url: str) -> bool | None:
    """The same of the Redis at this URL; None where it does not answer.

    Raises:
        DarkroomError: it does not let us in, or the URL is none; says what to do.
    """
    return entered(url, is_locked)


class Accounts:
    """One per gateway process. Nothing is kept of an account from one request to the next, but that
    it was here."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._sightings = Sightings(redis)
        self._locked: bool | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look whether the house is locked, now and in the background, until it is."""
        with contextlib.suppress(BrokerUnavailable):
            await self._look()
        self._task = asyncio.create_task(self._watch(), name="darkroom-accounts")
        self._sightings.start()

    async def stop(self) -> None:
        """Look no more, and write down who was here."""
        await self._sightings.stop()
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again where redis-py swallowed it while it connected
            await asyncio.wait([self._task], timeout=0.1)

    def lock(self) -> None:
        """Want a key from now on, whatever Redis says: others can come in here."""
        self._locked = True

    async def locked(self) -> bool:
        """Whether a key is wanted. It was so half a second ago, or before Redis went away.

        Raises:
            BrokerUnavailable: it could never be asked.
        """
        if self._locked is None:
            await self._look()
        assert self._locked is not None
        return self._locked

    @translated
    async def of_key(self, key: str) -> Account:
        """Whose key this is.

        Raises:
            Unauthenticated: nobody's, or nobody's any more; it does not say which.
        """
        parts = KEY.fullmatch(key)
        if parts is None:
            raise refused()
        raw = await self._redis.hgetall(keys.account(parts[1]))
        known = raw.get(b"digest", NOBODY.encode())
        same = hmac.compare_digest(known, _digest(parts[2]).encode())
        account, now = _account(raw), time.time()
        if not same or account is None or account.state(now) is not KeyState.GOOD:
            raise refused()
        self._sightings.note(account.id, now)
        return account

    @translated
    async def _look(self) -> None:
        # It never goes back: a Redis that has lost its data must not open the house.
        self._locked = self._locked or bool(await self._redis.exists(keys.LOCKED))

    async def _watch(self) -> None:
        while not self._locked:
            with contextlib.suppress(BrokerUnavailable):
                await self._look()
            await asyncio.sleep(LOOK_SECONDS)


def refused() -> Unauthenticated:
    """The one answer to every key that is not good."""
    return Unauthenticated("this key is not known here, or not any more")


def key_in(credentials: Collection[str]) -> str | None:
    """The first of them that can be a key."""
    return next((each for each in credentials if KEY.fullmatch(each)), None)


def _account(raw: dict[bytes, bytes]) -> Account | None:
    """As it was kept; None where that was not finished, or cannot be read."""
    if b"about" not in raw or b"digest" not in raw:
        return None
    try:
        account = Account.model_validate_json(raw[b"about"])
    except ValidationError as error:
        log.error("an account cannot be read: %d fields are wrong", error.error_count())
        return None
    if (revoked_at := raw.get(b"revoked_at")) is None:
        return account
    return account.model_copy(update={"revoked_at": float(revoked_at)})


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
