"""What happened to a generation, as its stream in Redis tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from server.broker import keys
from server.broker.patience import translated
from server.spec import TERMINAL


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a generation; `id` is what `Last-Event-ID` brings back."""

    id: str
    event: str
    data: dict[str, Any]


@translated
async def happened(redis: Any, id: str, after: str) -> tuple[bool, list[Event]]:
    """Whether these are the last, and what happened since event `after`. The state is read first:
    once it is terminal, `done` is among the events."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hget(keys.generation(id), "status")
        pipe.xrange(keys.events(id), min=f"({after}")
        status, entries = await pipe.execute()
    return status is None or status.decode() in TERMINAL, [
        Event(entry.decode(), fields[b"event"].decode(), json.loads(fields[b"data"]))
        for entry, fields in entries
    ]
