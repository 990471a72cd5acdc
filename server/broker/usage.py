"""What an owner has: generations that have not ended, work that waits, work drawn today. And the
same of all accounts, for who looks after them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from server.broker import accounts, keys
from server.broker.accounts import Account
from server.spec import GenerationState


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one owner. Seconds are of work, as predicted."""

    living: int
    """Generations that are queued or running."""
    queued_seconds: Mapping[str, float]
    """By checkpoint, where there is any."""
    spent_seconds: float
    """Today, by UTC."""


@dataclass(frozen=True, slots=True)
class Share:
    """What an owner has of what it may have, at all checkpoints."""

    living: int
    """Generations that are queued or running."""
    daily_seconds: float
    """Of work: drawn today, or queued where this was asked."""


@dataclass(frozen=True, slots=True)
class Tally:
    """An account, and what it has. Seconds are of work, as predicted."""

    account: Account
    queued: int
    running: int
    queued_seconds: Mapping[str, float]
    """By checkpoint, where there is any."""
    spent_seconds: float
    """Today, by UTC."""
    seen_at: float | None
    """When its key was last used, to the minute; None: never."""


def read_tallies(redis: Redis) -> list[Tally]:
    """Of every account, oldest first."""
    found = accounts.every(redis)
    today = time.time()
    with redis.pipeline(transaction=False) as pipe:
        for account in found:
            pipe.smembers(keys.living(account.id))
            pipe.hgetall(keys.WAITS + account.id)
            pipe.get(keys.spent(account.id, today))
            pipe.zscore(keys.SEEN, account.id)
        said = pipe.execute()
    each = zip(found, said[::4], said[1::4], said[2::4], said[3::4], strict=True)
    return [
        Tally(
            account=account,
            **_states(redis, living),
            queued_seconds={
                line.decode().removeprefix(keys.line("")): float(load)
                for line, load in waiting.items()
            },
            spent_seconds=float(spent or 0),
            seen_at=seen,
        )
        for account, living, waiting, spent, seen in each
    ]


def _states(redis: Redis, ids: Iterable[bytes]) -> dict[str, int]:
    """How many of them are queued, and how many running."""
    with redis.pipeline(transaction=False) as pipe:
        for id in ids:
            pipe.hget(keys.generation(id.decode()), "status")
        states = Counter(pipe.execute())
    return {
        state.value: states[state.value.encode()]
        for state in (GenerationState.QUEUED, GenerationState.RUNNING)
    }


async def read_usage(redis: Any, owner: str, checkpoints: Sequence[str]) -> Usage:
    """In one round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.scard(keys.living(owner))
        pipe.get(keys.spent(owner, time.time()))
        for checkpoint in checkpoints:
            pipe.hget(keys.load(checkpoint), owner)
        living, spent, *loads = await pipe.execute()
    waiting = {name: float(load) for name, load in zip(checkpoints, loads, strict=True) if load}
    return Usage(living=living, queued_seconds=waiting, spent_seconds=float(spent or 0))
