"""The gateway's half of the queue: submit, look, list, wait, follow, cancel, delete.

Every command sent here is harmless to repeat, so a broken connection is tried again before the
caller hears of it; what still fails is one error, `BrokerUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.retry
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from rq import Queue

from server.broker import attendance, control, keys, previews, submit
from server.broker.deliveries import Deliveries
from server.broker.hub import Hub
from server.broker.leftovers import Discard, Leftovers, keep
from server.broker.pages import Cursor, read_page
from server.broker.patience import TIMEOUT_SECONDS, translated
from server.broker.pool import QueueingPool
from server.broker.queues import QueueInfo, read_queues
from server.broker.record import Generation, Replay, Webhook
from server.broker.sessions import Sessions
from server.errors import (
    DarkroomError,
    Gone,
    IdempotencyConflict,
    NotFound,
    NoWorker,
    QueueFull,
)
from server.spec import TERMINAL, AnySpec, GenerationState, Warn, new_generation_id

LOOK_SECONDS = 5.0
"""Who waits looks at least this often: a subscription can die without a word."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a generation; `id` is what `Last-Event-ID` brings back."""

    id: str
    event: str
    data: dict[str, Any]


class Broker:
    """One per gateway process."""

    def __init__(
        self,
        url: str,
        *,
        max_queued: int,
        retention_seconds: int,
        discard: Discard = keep,
    ) -> None:
        backoff = ExponentialBackoff(cap=0.2, base=0.05)
        # Any: redis-py's stubs give every reply as bytes | str, whatever the client decodes.
        self._redis: Any = Redis.from_pool(
            QueueingPool.from_url(
                url,
                retry=Retry(backoff, 1),
                retry_on_error=[redis.exceptions.ConnectionError],
                socket_connect_timeout=TIMEOUT_SECONDS,
            )
        )
        self._subscriber = Redis.from_url(url, socket_connect_timeout=TIMEOUT_SECONDS)
        self._blocking = redis.Redis.from_url(
            url,
            retry=redis.retry.Retry(backoff, 1),
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        self._submit = self._redis.register_script(submit.SCRIPT)
        self._max_queued = max_queued
        self._retention = retention_seconds
        self._leftovers = Leftovers(discard)
        self.hub = Hub(self._subscriber)
        self.deliveries = Deliveries(self._redis)
        self.sessions = Sessions(self._redis)

    async def start(self) -> None:
        """Begin to listen for changes."""
        await self.hub.start()

    async def close(self) -> None:
        """Let go of Redis, and of the store as soon as it has removed what it was asked to."""
        await self.hub.stop()
        await self._leftovers.close()
        await self._subscriber.aclose()
        await self._redis.aclose()
        self._blocking.close()

    @translated
    async def submit(
        self,
        spec: AnySpec,
        *,
        owner: str,
        id: str | None = None,
        warnings: tuple[Warn, ...] = (),
        idempotency: submit.Idempotency | None = None,
        webhook: Webhook | None = None,
        replay: Replay | None = None,
    ) -> tuple[Generation, bool]:
        """Accept a generation, or find the one this Idempotency-Key made before.

        `id` is from `new_generation_id`, where the caller stored pictures under it already.

        Returns:
            The record, and whether it was made now.

        Raises:
            QueueFull, NoWorker, IdempotencyConflict: nothing was queued.
            BrokerUnavailable: it may have been: the outcome is unknown. With an Idempotency-Key
                it can be asked for again.
        """
        fresh = Generation(
            id=id or new_generation_id(),
            owner=owner,
            spec=spec,
            created_at=time.time(),
            warnings=warnings,
            webhook=webhook,
            replay=replay,
        )
        names, values = submit.arguments(
            fresh,
            self._blocking,
            max_queued=self._max_queued,
            retention=self._retention,
            idempotency=idempotency,
        )
        verdict, about, *ahead = await self._submit(keys=names, args=values)
        if verdict == b"accepted":
            return fresh.model_copy(update={"ahead": ahead[0]}) if ahead else fresh, True
        if verdict == b"replayed":
            return await self.get(about.decode(), owner=owner), False
        raise await self._refusal(verdict.decode(), about.decode() or spec.checkpoint)

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
        if raw.get(b"owner") != owner.encode():
            raise NotFound(f"there is no generation {id}")
        try:
            generation = Generation.from_hash(raw)
        except ValueError as error:
            raise DarkroomError(f"the record of {id} cannot be read") from error
        if await self._expire(generation):
            return await self.get(id, owner=owner)
        return generation

    async def _expire(self, generation: Generation) -> bool:
        """Whether it was overdue, so that it must be looked at again."""
        if generation.status is not GenerationState.QUEUED or time.time() < generation.deadline:
            return False
        ended = await asyncio.to_thread(
            control.expire, self._blocking, generation, retention=self._retention
        )
        self._leftovers.clear(ended)
        return True

    @translated
    async def page(
        self, *, owner: str, limit: int, after: Cursor | None, state: GenerationState | None
    ) -> tuple[list[Generation], Cursor | None]:
        """The owner's generations, newest first, and the cursor of the next page if there is one.

        `after` is the cursor of the page before; it stays good when what it points at is deleted.
        Where the state is rare a page can be short, or empty, and have a next one.
        """
        return await read_page(self._redis, owner=owner, limit=limit, after=after, state=state)

    async def wait(self, id: str, *, owner: str, seconds: float) -> Generation:
        """The record once it is terminal, or as it is after `seconds`."""
        deadline = time.monotonic() + seconds
        with self.hub.watch(id) as changed:
            while True:
                changed.clear()
                last_look = self.hub.released
                generation = await self.get(id, owner=owner)
                remaining = deadline - time.monotonic()
                if generation.terminal or remaining <= 0 or last_look:
                    return generation
                if generation.status is GenerationState.QUEUED:
                    # Look again at its deadline: `get` expires what is overdue.
                    remaining = min(remaining, max(0.01, generation.deadline - time.time()))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), min(remaining, LOOK_SECONDS))

    async def events(
        self, id: str, *, after: str, idle_seconds: float
    ) -> AsyncIterator[Event | None]:
        """What happened since event `after` ("0" for all), then what happens, until `done`.

        Yields None whenever nothing happened for `idle_seconds`. Ends also where no `done` can
        follow: it came before `after`, the generation is no longer there, or the process ends,
        which sends what has happened until then.
        """
        with self.hub.watch(id) as changed:
            while True:
                changed.clear()
                last_look = self.hub.released
                over, events = await self._events_after(id, after)
                for event in events:
                    yield event
                    after = event.id
                if over or last_look:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), idle_seconds)
                except TimeoutError:
                    yield None

    @translated
    async def _events_after(self, id: str, after: str) -> tuple[bool, list[Event]]:
        """Whether these are the last, and they. The state is read first: once it is terminal,
        `done` is among the events."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.generation(id), "status")
            pipe.xrange(keys.events(id), min=f"({after}")
            status, entries = await pipe.execute()
        return status is None or status.decode() in TERMINAL, [
            Event(entry.decode(), fields[b"event"].decode(), json.loads(fields[b"data"]))
            for entry, fields in entries
        ]

    @translated
    async def cancel(self, id: str, *, owner: str) -> Generation:
        """Ask that it stops; queued ones end at once, running ones between two steps."""
        await self.get(id, owner=owner)
        ended = await asyncio.to_thread(
            control.cancel, self._blocking, id, retention=self._retention
        )
        self._leftovers.clear(ended)
        return await self.get(id, owner=owner)

    @translated
    async def preview(self, id: str, index: int) -> bytes | None:
        """The newest preview of an image, a JPEG; None where there is none, or none any more.
        Whose generation it is was asked before."""
        return await previews.newest(self._redis, id, index)

    @translated
    async def attend(self, id: str, waiter: str, *, seconds: float) -> None:
        """`waiter` waits for it with an open connection, for so long at most."""
        await attendance.attend(self._redis, id, waiter, seconds=seconds)

    @translated
    async def leave(self, id: str, waiter: str) -> None:
        """`waiter` waits no more."""
        await attendance.leave(self._redis, id, waiter)

    @translated
    async def attended(self, id: str) -> bool:
        """Whether anybody waits for it, at any gateway."""
        return await attendance.attended(self._redis, id)

    @translated
    async def remove(self, generation: Generation) -> None:
        """Forget a terminal generation; later reads answer 410."""
        await asyncio.to_thread(
            control.remove, self._blocking, generation, retention=self._retention
        )

    async def queue(self, checkpoint: str) -> QueueInfo:
        """How long the queue is, and who works on it."""
        return (await self.queues([checkpoint]))[0]

    @translated
    async def queues(self, checkpoints: Sequence[str]) -> list[QueueInfo]:
        """The same of several checkpoints, at the price of one."""
        return await read_queues(self._redis, checkpoints)

    @translated
    async def position(self, generation: Generation) -> int | None:
        """How many are ahead of it in the queue; None when it is not queued."""
        if generation.status is not GenerationState.QUEUED:
            return None
        queue = Queue(generation.checkpoint, connection=self._blocking)
        place: int | None = await self._redis.lpos(queue.key, generation.id)
        return place
