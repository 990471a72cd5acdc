"""What a sweep of the image store asks Redis: which files are needed, whether it is time for one,
and whether the store is this Redis' own."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from server.broker import keys
from server.broker.patience import translated
from server.broker.record import Generation
from server.broker.turns import Turn
from server.spec import UPLOADED

log = logging.getLogger("darkroom.broker")


class Sweeps:
    """As a gateway sees it.

    Raises:
        BrokerUnavailable: by any of its methods.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self.turn = Turn(redis, keys.SWEEPER)

    @translated
    async def due(self) -> bool:
        """Whether the last one is long enough ago."""
        return not await self._redis.exists(keys.SWEPT)

    @translated
    async def done(self, seconds: float) -> None:
        """The next one is due in so many seconds."""
        await self._redis.set(keys.SWEPT, "", px=int(seconds * 1000))

    @translated
    async def mark(self) -> str:
        """What is written into the image store that belongs to this Redis."""
        await self._redis.set(keys.STORE, uuid.uuid4().hex, nx=True)
        mark: bytes = await self._redis.get(keys.STORE)
        return mark.decode()

    @translated
    async def needed(self, ids: Sequence[str]) -> list[Collection[str] | None]:
        """Of each generation, the store keys that somebody may still ask for. None: whatever there
        is, since it has not ended, or cannot be read, or the janitor is about to remove it."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(keys.generation(id))
            found = await pipe.execute(raise_on_error=False)
        return [_needed(id, raw) for id, raw in zip(ids, found, strict=True)]


def _needed(id: str, raw: Mapping[bytes, bytes] | Exception) -> Collection[str] | None:
    if isinstance(raw, Exception):  # what is there is no record
        return None
    if b"status" not in raw:  # nothing, or a tombstone
        return ()
    try:
        generation = Generation.from_hash(raw)
    except ValueError as error:
        log.error("a record cannot be read: %s", type(error).__name__, extra={"generation": id})
        return None
    return _named(generation) if generation.terminal else None


def _named(generation: Generation) -> set[str]:
    uploads = (getattr(generation.spec, field, None) for field in UPLOADED)
    return {each.key for each in (*generation.images, *uploads) if each is not None}
