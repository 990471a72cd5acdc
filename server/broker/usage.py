"""What an owner has: generations that have not ended, work that waits, work drawn today."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.broker import keys


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
