"""Calls the webhooks that are due, one such task in each gateway. Knows the queue of deliveries and
what a message says; how it is sent is the messenger's affair."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from http import HTTPStatus

from pydantic import BaseModel

from server.api.records import GenerationRecord, record_of, rfc3339
from server.api.webhooks.messenger import Answer, Messenger
from server.broker import Attempt, Broker, DeliveryState, Due, Generation
from server.errors import BrokerUnavailable, DarkroomError, Gone, NotFound
from server.metrics import GatewayMetrics
from server.tracing import SILENT, Context, Kind, Tracer

log = logging.getLogger("darkroom.webhooks")

RETRY_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000)
"""Between one try and the next; after the last of these it has failed."""
MAX_PAUSE_SECONDS = RETRY_SECONDS[-1]
"""The longest `Retry-After` that is honoured."""
JITTER = 0.1
PARALLEL = 32
LOOK_SECONDS = 0.25
UNENDED_SECONDS = 60.0
"""When to look again at what should have ended and has not."""
GRACE_SECONDS = 1.0
"""What a gateway that ends gives to the calls it has begun."""


class Message(BaseModel):
    """What a webhook is sent."""

    type: str
    """`generation.` and the state it ended in."""
    timestamp: str
    data: GenerationRecord


def message_id(id: str) -> str:
    """The same for each attempt, so that a receiver can tell that it has it already."""
    return id.replace("gen_", "msg_", 1)


class Deliverer:
    """One per gateway. `clock` is that of the queue."""

    def __init__(
        self,
        broker: Broker,
        messenger: Messenger,
        metrics: GatewayMetrics,
        tracer: Tracer = SILENT,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._messenger = messenger
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run(), name="darkroom-webhooks")

    async def stop(self) -> None:
        """Begin no more, and end what has begun. What could not be finished in a second is called
        again by another gateway, or by the next one here."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again where redis-py swallowed it while it connected
            await asyncio.wait([self._task], timeout=0.1)
        if self._calls:
            await asyncio.wait(self._calls, timeout=GRACE_SECONDS)
        for call in self._calls:
            call.cancel()
        await self.settled()

    async def settled(self) -> None:
        """Until all that has begun has ended."""
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def look(self) -> bool:
        """Begin to call what is due; whether there may be more of it."""
        room = PARALLEL - len(self._calls)
        claimed = await self._broker.deliveries.claim(self._clock(), room)
        for due in claimed:
            call = asyncio.create_task(self._deliver(due))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return len(claimed) == room

    async def _run(self) -> None:
        while True:
            more = False
            try:
                more = await self.look()
            except BrokerUnavailable as error:
                log.debug("%s; looking again", error.message)
            except Exception:  # without this task no webhook would be called any more
                log.exception("an unexpected error, looking again")
            if len(self._calls) >= PARALLEL:
                await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
            elif not more:
                await asyncio.sleep(LOOK_SECONDS)

    async def _deliver(self, due: Due) -> None:
        """What is not written down here is called again when its lease is over."""
        try:
            await self._consider(due)
        except BrokerUnavailable:
            log.warning("the queue was away while a webhook was called", extra=_about(due))
        except Exception:
            log.exception("a webhook cannot be called", extra=_about(due))

    async def _consider(self, due: Due) -> None:
        deliveries = self._broker.deliveries
        try:
            generation = await self._broker.get(due.id, owner=due.owner)
        except (Gone, NotFound):  # nothing is left to tell
            await deliveries.settle(due, DeliveryState.SKIPPED)
            return
        except BrokerUnavailable:
            raise
        except DarkroomError as error:
            log.error("a webhook is given up: %s", error.message, extra=_about(due))
            await deliveries.settle(due, DeliveryState.FAILED)
            return
        assert generation.webhook is not None
        if not generation.terminal:
            later = max(self._clock(), generation.deadline) + UNENDED_SECONDS
            await deliveries.settle(due, DeliveryState.PENDING, again_at=later)
        elif not generation.webhook.wants(generation.status):
            await deliveries.settle(due, DeliveryState.SKIPPED)
        else:
            await self._call(due, generation, generation.webhook.url)

    async def _call(self, due: Due, generation: Generation, url: str) -> None:
        began, since = self._clock(), time.monotonic()
        answer = await self._messenger.post(url, message_id(due.id), _body(generation))
        attempt = Attempt(
            at=began,
            status=answer.status,
            error=answer.error,
            seconds=round(time.monotonic() - since, 3),
        )
        state = _verdict(answer, due.tries)
        again_at = None
        if state is DeliveryState.PENDING:
            again_at = self._clock() + _pause(answer, due.tries)
        self._metrics.webhook_calls_total.labels(state.value).inc()
        self._trace(generation, attempt, state)
        if state is DeliveryState.FAILED:
            log.warning("a webhook was given up: %s", _reason(answer), extra=_about(due))
        await self._broker.deliveries.settle(due, state, attempt=attempt, again_at=again_at)

    def _trace(self, generation: Generation, attempt: Attempt, state: DeliveryState) -> None:
        context = Context.read(generation.traceparent)
        self._tracer.remember(generation.id, context)
        if not self._tracer.on or context is None:
            return
        said: dict[str, str | int] = {
            "http.request.method": "POST",
            "darkroom.generation": generation.id,
            "darkroom.outcome": state.value,
        }
        if attempt.status is not None:
            said["http.response.status_code"] = attempt.status
        span = self._tracer.begin(
            "POST webhook", context, kind=Kind.CLIENT, at=attempt.at, attributes=said
        )
        failed = "" if state is DeliveryState.DELIVERED else str(attempt.status or "no_answer")
        span.end(error=failed, at=attempt.at + attempt.seconds)


def _verdict(answer: Answer, tries: int) -> DeliveryState:
    if answer.status is not None and HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return DeliveryState.DELIVERED
    if answer.status == HTTPStatus.GONE or tries >= len(RETRY_SECONDS):
        return DeliveryState.FAILED
    return DeliveryState.PENDING


def _pause(answer: Answer, tries: int) -> float:
    """Never shorter than planned, nor than the receiver asks for within reason."""
    planned = RETRY_SECONDS[tries] * random.uniform(1, 1 + JITTER)
    return max(planned, min(answer.retry_after or 0.0, MAX_PAUSE_SECONDS))


def _reason(answer: Answer) -> str:
    return answer.error or f"it answered {answer.status}"


def _body(generation: Generation) -> str:
    assert generation.finished_at is not None
    return Message(
        type=f"generation.{generation.status}",
        timestamp=rfc3339(generation.finished_at),
        data=record_of(generation, queue_position=None, eta_seconds=None),
    ).model_dump_json()


def _about(due: Due) -> dict[str, str]:
    return {"generation": due.id}
