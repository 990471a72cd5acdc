"""An owner's generations, page by page."""

from __future__ import annotations

import logging
import time
from typing import Any

from server.broker import keys
from server.broker.expiry import is_over
from server.broker.record import Generation
from server.spec import GenerationState

log = logging.getLogger("darkroom.broker")

SCANNED_PER_PAGE = 500
"""After so many a page ends, however few it has found: it must be made within one patience."""

Cursor = tuple[float, str]
"""Where a page ends: when its last generation was created, and its id."""


async def read_page(
    redis: Any, *, owner: str, limit: int, after: Cursor | None, state: GenerationState | None
) -> tuple[list[Generation], Cursor | None]:
    """What `Broker.page` promises. Ids whose record is over are dropped."""
    found: list[Generation] = []
    scanned = 0
    while len(found) <= limit and scanned < SCANNED_PER_PAGE:
        places = await _places_after(redis, owner, after, count=max(limit, 50))
        if not places:
            after = None
            break
        for (_, id), raw in zip(places, await _records(redis, places), strict=True):
            if not raw or is_over(raw, time.time()):
                await redis.zrem(keys.owned(owner), id)
            elif state is None or raw.get(b"status") == state.value.encode():
                found += _readable(id, raw)
        scanned += len(places)
        after = places[-1]
    if len(found) > limit:
        last = found[limit - 1]
        after = last.created_at, last.id
    return found[:limit], after


def _readable(id: str, raw: dict[bytes, bytes]) -> list[Generation]:
    """A record that cannot be read must not take the others with it."""
    try:
        return [Generation.from_hash(raw)]
    except ValueError as error:
        log.error("a record cannot be read: %s", type(error).__name__, extra={"generation": id})
        return []


async def _places_after(
    redis: Any, owner: str, after: Cursor | None, *, count: int
) -> list[Cursor]:
    """By time, then by id, as the sorted set itself orders them."""
    top = "+inf" if after is None else repr(after[0])
    entries = await redis.zrevrangebyscore(
        keys.owned(owner), top, "-inf", start=0, num=count, withscores=True
    )
    places = [(float(score), id.decode()) for id, score in entries]
    return places if after is None else [place for place in places if place < after]


async def _records(redis: Any, places: list[Cursor]) -> list[dict[bytes, bytes]]:
    async with redis.pipeline(transaction=False) as pipe:
        for _, id in places:
            pipe.hgetall(keys.generation(id))
        return list(await pipe.execute())
