"""The gateway's half of the queue: submit, look, list, wait, follow, cancel, delete.

Every command sent here is harmless to repeat, so a broken connection is tried again before the
caller hears of it; what still fails is one error, `BrokerUnavailable`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from rq import Queue
from rq.registry import StartedJobRegistry

from server.broker import control, keys, submit
from server.broker.hub import Hub
from server.broker.record import Generation, WorkerInfo
from server.errors import (
    BrokerUnavailable,
    Gone,
    IdempotencyConflict,
    NotFound,
    NoWorker,
    QueueFull,
)
from server.spec import GenerationState, TextToImage, Warn, new_generation_id

P = ParamSpec("P")
T = TypeVar("T")

TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a generation; `id` is what `Last-Event-ID` brings back."""

    id: str
    event: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One checkpoint's queue, and what its workers make of it."""

    checkpoint: str
    queued: int
    running: int
    workers: tuple[WorkerInfo, ...]

    def wait_seconds(self, ahead: int) -> float | None:
        """Predicted seconds until `ahead` generations are done; None before there is a measure."""
        rate = sum(1 / w.pace_seconds for w in self.workers if w.pace_seconds > 0)
        return ahead / rate if rate else None


def translated(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Turn what Redis raises into `BrokerUnavailable`, at this one seam."""

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except (RedisError, OSError) as error:
            reason = "the queue cannot be reached or refuses writes; nothing was changed"
            raise BrokerUnavailable(reason, retry_after=2.0) from error

    return call


class Broker:
    """One per gateway process."""

    def __init__(self, url: str, *, max_queued: int, retention_seconds: int) -> None:
        retry = Retry(ExponentialBackoff(cap=0.2, base=0.05), 2)
        # Any: redis-py's stubs give every reply as bytes | str, whatever the client decodes.
        self._redis: Any = Redis.from_url(
            url,
            retry=retry,
            retry_on_error=[redis.exceptions.ConnectionError],
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        self._subscriber = Redis.from_url(url, socket_connect_timeout=TIMEOUT_SECONDS)
        self._blocking = redis.Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS)
        self._submit = self._redis.register_script(submit.SCRIPT)
        self._max_queued = max_queued
        self._retention = retention_seconds
        self.hub = Hub(self._subscriber)

    async def start(self) -> None:
        """Begin to listen for changes."""
        await self.hub.start()

    async def close(self) -> None:
        """Let go of Redis."""
        await self.hub.stop()
        await self._subscriber.aclose()
        await self._redis.aclose()
        self._blocking.close()

    @translated
    async def ping(self) -> None:
        """Raises BrokerUnavailable unless Redis answers."""
        await self._redis.ping()

    @translated
    async def submit(
        self,
        spec: TextToImage,
        *,
        owner: str,
        warnings: tuple[Warn, ...] = (),
        idempotency: submit.Idempotency | None = None,
    ) -> tuple[Generation, bool]:
        """Accept a generation, or find the one this Idempotency-Key made before.

        Returns:
            The record, and whether it was made now.

        Raises:
            QueueFull, NoWorker, IdempotencyConflict: nothing was queued.
        """
        fresh = Generation(
            id=new_generation_id(),
            owner=owner,
            spec=spec,
            created_at=time.time(),
            warnings=warnings,
        )
        names, values = submit.arguments(
            fresh,
            self._blocking,
            max_queued=self._max_queued,
            retention=self._retention,
            idempotency=idempotency,
        )
        verdict, id = [part.decode() for part in await self._submit(keys=names, args=values)]
        if verdict == "accepted":
            return fresh, True
        if verdict == "replayed":
            return await self.get(id, owner=owner), False
        raise await self._refusal(verdict, spec.checkpoint)

    async def _refusal(self, verdict: str, checkpoint: str) -> Exception:
        if verdict == "conflict":
            return IdempotencyConflict("this Idempotency-Key was used before with another body")
        if verdict == "unserved":
            return NoWorker(f"no worker serves {checkpoint!r} at the moment", retry_after=5.0)
        queue = await self.queue(checkpoint)
        seconds = queue.wait_seconds(1) or 1.0
        return QueueFull(
            f"{queue.queued} generations are waiting for {checkpoint!r}, which is the most allowed",
            retry_after=max(1.0, seconds),
        )

    @translated
    async def get(self, id: str, *, owner: str) -> Generation:
        """The record.

        Raises:
            NotFound: there is none, or it is another owner's.
            Gone: it was deleted.
        """
        raw = await self._redis.hgetall(keys.generation(id))
        if b"deleted_at" in raw:
            raise Gone(f"{id} has been deleted")
        if not raw or raw[b"owner"].decode() != owner:
            raise NotFound(f"there is no generation {id}")
        generation = Generation.from_hash(raw)
        if await self._expire(generation):
            return await self.get(id, owner=owner)
        return generation

    async def _expire(self, generation: Generation) -> bool:
        if generation.status is not GenerationState.QUEUED or time.time() < generation.deadline:
            return False
        return await asyncio.to_thread(
            control.expire_if_overdue, self._blocking, generation, retention=self._retention
        )

    @translated
    async def page(
        self, *, owner: str, limit: int, after: str | None, state: GenerationState | None
    ) -> tuple[list[Generation], str | None]:
        """The owner's generations, newest first, and the cursor of the next page if there is one.

        `after` is the last id of the page before. Ids whose record has expired are dropped.
        """
        found: list[Generation] = []
        while len(found) <= limit:
            ids = await self._ids_before(owner, after, count=max(limit, 50))
            if not ids:
                break
            for id, raw in zip(ids, await self._records(ids), strict=True):
                if not raw or b"deleted_at" in raw:
                    await self._redis.zrem(keys.owned(owner), id)
                elif state is None or raw[b"status"].decode() == state.value:
                    found.append(Generation.from_hash(raw))
            after = ids[-1]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def _ids_before(self, owner: str, after: str | None, *, count: int) -> list[str]:
        """Ids sort by time, so within equal scores the order of the set is that of the ids."""
        start = 0
        if after is not None:
            rank = await self._redis.zrevrank(keys.owned(owner), after)
            if rank is None:
                return []
            start = int(rank) + 1
        ids = await self._redis.zrevrange(keys.owned(owner), start, start + count - 1)
        return [id.decode() for id in ids]

    async def _records(self, ids: list[str]) -> list[dict[bytes, bytes]]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(keys.generation(id))
            return list(await pipe.execute())

    async def wait(self, id: str, *, owner: str, seconds: float) -> Generation:
        """The record once it is terminal, or as it is after `seconds`."""
        deadline = time.monotonic() + seconds
        with self.hub.watch(id) as changed:
            while True:
                changed.clear()
                generation = await self.get(id, owner=owner)
                remaining = deadline - time.monotonic()
                if generation.terminal or remaining <= 0:
                    return generation
                try:
                    await asyncio.wait_for(changed.wait(), remaining)
                except TimeoutError:
                    continue

    async def events(
        self, id: str, *, after: str, idle_seconds: float
    ) -> AsyncIterator[Event | None]:
        """What happened since event `after` ("0" for all), then what happens, until `done`.

        Yields None whenever nothing happened for `idle_seconds`.
        """
        with self.hub.watch(id) as changed:
            while True:
                changed.clear()
                for event in await self._events_after(id, after):
                    yield event
                    after = event.id
                    if event.event == "done":
                        return
                try:
                    await asyncio.wait_for(changed.wait(), idle_seconds)
                except TimeoutError:
                    yield None

    @translated
    async def _events_after(self, id: str, after: str) -> list[Event]:
        entries = await self._redis.xrange(keys.events(id), min=f"({after}")
        return [
            Event(entry.decode(), fields[b"event"].decode(), json.loads(fields[b"data"]))
            for entry, fields in entries
        ]

    @translated
    async def cancel(self, id: str, *, owner: str) -> Generation:
        """Ask that it stops; queued ones end at once, running ones between two steps."""
        await self.get(id, owner=owner)
        await asyncio.to_thread(control.cancel, self._blocking, id, retention=self._retention)
        return await self.get(id, owner=owner)

    @translated
    async def remove(self, generation: Generation) -> None:
        """Forget a terminal generation; later reads answer 410."""
        await asyncio.to_thread(
            control.remove, self._blocking, generation, retention=self._retention
        )

    @translated
    async def queue(self, checkpoint: str) -> QueueInfo:
        """How long the queue is, and who works on it."""
        queue = Queue(checkpoint, connection=self._blocking)
        started = StartedJobRegistry(checkpoint, connection=self._blocking)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.llen(queue.key)
            pipe.zcard(started.key)
            pipe.smembers(keys.workers(checkpoint))
            queued, running, names = await pipe.execute()
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in sorted(names):
                pipe.hgetall(keys.worker(name.decode()))
            found = await pipe.execute() if names else []
        workers = tuple(WorkerInfo.from_hash(raw) for raw in found if raw)
        return QueueInfo(checkpoint, queued, running, workers)

    @translated
    async def position(self, generation: Generation) -> int | None:
        """How many are ahead of it in the queue; None when it is not queued."""
        if generation.status is not GenerationState.QUEUED:
            return None
        queue = Queue(generation.spec.checkpoint, connection=self._blocking)
        place: int | None = await self._redis.lpos(queue.key, generation.id)
        return place
