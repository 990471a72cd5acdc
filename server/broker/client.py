"""The gateway's half of the queue: submit, look, list, wait, follow, cancel, delete.

Every command sent here is harmless to repeat, so a broken connection is tried again before the
caller hears of it; what still fails is one error, `BrokerUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence

from rq import Queue

from server.broker import attendance, control, expiry, hands, keys, previews, submit
from server.broker.accounts import Accounts
from server.broker.deliveries import Deliveries
from server.broker.delivery import DONE
from server.broker.events import Event, happened
from server.broker.expiry import Expiry
from server.broker.hands import Place
from server.broker.hub import Hub
from server.broker.leftovers import Discard, Leftovers, Tell, keep, say_nothing
from server.broker.memory import read_memory
from server.broker.pages import Cursor, read_page
from server.broker.patience import translated
from server.broker.pool import blocking, pooled, subscribing
from server.broker.queues import QueueInfo, read_queues
from server.broker.rates import Rates
from server.broker.record import Generation, Replay, Webhook
from server.broker.refusals import refusal
from server.broker.sessions import Sessions
from server.broker.submit import Idempotency, Repeats
from server.broker.sweeps import Sweeps
from server.broker.usage import Share, Tally, Usage, read_tallies, read_usage
from server.errors import DarkroomError
from server.forecast import UNKNOWN_SECONDS, Demand
from server.spec import AnySpec, GenerationState, Warn, new_generation_id

LOOK_SECONDS = 5.0
"""Who waits looks at least this often: a subscription can die without a word."""


class Broker:
    """One per gateway process."""

    def __init__(
        self,
        url: str,
        *,
        retention_seconds: int,
        discard: Discard = keep,
        tell: Tell = say_nothing,
    ) -> None:
        self._redis, self._blocking = pooled(url), blocking(url)
        self._subscriber = subscribing(url)
        self._submit = self._redis.register_script(submit.SCRIPT)
        self._before = self._redis.register_script(hands.BEFORE)
        self._retention = retention_seconds
        self._leftovers = Leftovers(discard, tell)
        self.expiry = Expiry(
            self._redis, self._blocking, retention=retention_seconds, leftovers=self._leftovers
        )
        self.sweeps = Sweeps(self._redis)
        self.hub = Hub(self._subscriber)
        self.deliveries = Deliveries(self._redis)
        self.sessions = Sessions(self._redis)
        self.accounts = Accounts(self._redis)
        self.rates = Rates(self._redis.connection_pool)

    async def start(self) -> None:
        """Begin to listen for changes."""
        await self.hub.start()
        await self.accounts.start()

    async def close(self) -> None:
        """Let go of Redis, and of the store as soon as it has removed what it was asked to."""
        await self.hub.stop()
        await self.accounts.stop()
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
        works: tuple[float, ...] = (),
        demand: Demand | None = None,
        foresee: Callable[[Place], float | None] = lambda place: None,
        weight: float = 1.0,
        terms: submit.Terms | None = None,
        warnings: tuple[Warn, ...] = (),
        idempotency: Idempotency | None = None,
        webhook: Webhook | None = None,
        replay: Replay | None = None,
        traceparent: str = "",
    ) -> tuple[Generation, bool]:
        """Accept a generation, or find the one this Idempotency-Key made before.

        `id` is from `new_generation_id`, where the caller stored pictures under it already; `works`
        are predicted seconds of a busy worker, for each stage, and `demand` is the first one's;
        `foresee` tells from its place how many seconds it will take.

        Returns:
            The record, and whether it was made now.

        Raises:
            QueueFull, QuotaExceeded, DeadlineUnmeetable, NoWorker, IdempotencyConflict: nothing was
                queued.
            BrokerUnavailable: it may have been: the outcome is unknown. With an Idempotency-Key
                it can be asked for again.
        """
        fresh = Generation(
            id=id or new_generation_id(),
            owner=owner,
            spec=spec,
            created_at=time.time(),
            works=works,
            weight=weight,
            warnings=warnings,
            webhook=webhook,
            replay=replay,
            traceparent=traceparent,
        )
        demand = demand or Demand(work=works[0] if works else UNKNOWN_SECONDS)
        names, values = submit.arguments(
            fresh,
            self._blocking,
            demand=demand,
            terms=terms or submit.Terms(),
            retention=self._retention,
            idempotency=idempotency,
        )
        verdict, about, *place = await self._submit(keys=names, args=values)
        if verdict == b"accepted":
            if not place:  # our first try, whose reply was lost
                return fresh, True
            ahead, seconds, company, living, spent = place
            here = Place(ahead, float(seconds), float(company))
            told = {
                "place": here,
                "share": Share(living, float(spent)),
                "eta_seconds": foresee(here),
            }
            return fresh.model_copy(update=told), True
        if verdict == b"replayed":
            return await self.get(about.decode(), owner=owner), False
        raise refusal(verdict.decode(), about.decode(), fresh, demand)

    @translated
    async def earlier(self, sent: Idempotency, *, owner: str) -> Generation | None:
        """What this Idempotency-Key has made with this body; None where it has made nothing, or
        does not stand for one generation however it ended.

        Raises:
            Gone: it was deleted, or was kept for as long as records are.
        """
        about = keys.idempotency(owner, sent.key)
        id, fingerprint = await self._redis.hmget(about, "id", "fingerprint")
        same = sent.repeats is Repeats.ANY and fingerprint == sent.fingerprint.encode()
        return await self.get(id.decode(), owner=owner) if same else None

    @translated
    async def get(self, id: str, *, owner: str) -> Generation:
        """The record.

        Raises:
            NotFound: there is none, or it is another owner's.
            Gone: it was deleted, or was kept for as long as records are.
        """
        raw = await self._redis.hgetall(keys.generation(id))
        expiry.check(id, raw, owner=owner, now=time.time())
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
        await self.expiry.end_queued(generation)
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
        # Only its end: looking at each step of all that are waited for took a fifth of a gateway.
        with self.hub.watch(id, DONE) as changed:
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
                over, events = await happened(self._redis, id, after)
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
    async def cancel(self, id: str, *, owner: str) -> Generation:
        """Ask that it stops; queued ones end at once, running ones between two steps."""
        await self.get(id, owner=owner)
        ended = await asyncio.to_thread(
            control.cancel, self._blocking, id, retention=self._retention
        )
        self._leftovers.clear(ended, GenerationState.CANCELED)
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
    async def ping(self) -> float:
        """Seconds to Redis and back."""
        began = time.monotonic()
        await self._redis.ping()
        return time.monotonic() - began

    @translated
    async def memory(self) -> dict[str, int]:
        """Bytes that Redis has `used`, and the `max` that it may where it is bounded."""
        return await read_memory(self._redis)

    @translated
    async def expect_writable(self) -> None:
        """Whether Redis takes writes.

        Raises:
            BrokerUnavailable: it is away, full, its disk is, or it is a replica.
        """
        await self._redis.set(keys.NOTHING, 1, xx=True)

    @translated
    async def usage(self, owner: str, checkpoints: Sequence[str]) -> Usage:
        """What an owner has queued at these, running and drawn today."""
        return await read_usage(self._redis, owner, checkpoints)

    @translated
    async def tallies(self) -> list[Tally]:
        """What every account has, oldest first."""
        return await asyncio.to_thread(read_tallies, self._blocking)

    @translated
    async def place(self, generation: Generation, demand: Demand) -> Place | None:
        """Where it is in the queue of its stage, which asks for so much; None if in none."""
        if generation.status is not GenerationState.QUEUED:
            return None
        name = generation.checkpoint
        found = await self._before(
            keys=[Queue(name, connection=self._blocking).key, keys.workers(name)],
            args=[keys.line(name), generation.id, json.dumps(hands.asked(demand))],
        )
        return Place(found[0], float(found[1]), float(found[2])) if found else None
