"""What routes are given: the parts of the gateway, and who is calling."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path as Folder
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from pydantic import AfterValidator

from server.api.examples import EXAMPLE_ID
from server.api.records import GenerationRecord, record_of
from server.api.tokenizers import Tokenizers
from server.api.webhooks.messenger import Messenger
from server.broker import Broker, Generation, QueueInfo
from server.catalog import Card, Catalog
from server.errors import BrokerUnavailable, NotFound
from server.metrics import GatewayMetrics
from server.spec import GENERATION_ID, GenerationState
from server.storage import ImageStore

LOOK_SECONDS = 1.0
"""How old a look at the queue may be that a prediction is made from."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One per process: what the routes work with."""

    broker: Broker
    catalog: Catalog
    store: ImageStore
    tokenizers: Tokenizers
    metrics: GatewayMetrics
    max_body_bytes: int
    max_wait_seconds: float
    default_checkpoint: str
    aliases: Mapping[str, str]
    """Other names for checkpoints at the OpenAI door."""
    models: Folder | None
    """Where LoRAs and autoencoders lie, if that can be seen from here."""
    decoders: asyncio.Semaphore
    looks: dict[str, tuple[float, QueueInfo]]
    abandoned_seconds: float
    """After how long a generation is canceled that nobody waits for any more; 0: never."""
    tasks: set[asyncio.Task[None]]
    messenger: Messenger | None
    """Who calls webhooks; None where there is no secret to sign them with."""

    def card(self, name: str | None) -> Card:
        """The card of that name, or of the default checkpoint.

        Raises:
            UnknownCheckpoint: the catalog has none of this name.
        """
        return self.catalog[self.default_checkpoint if name is None else name]

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the request, which may be over before."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def record(self, generation: Generation) -> GenerationRecord:
        """The record, with its place in the queue. What was accepted just now knows its place, so
        that answering costs no question to Redis."""
        ahead = generation.ahead
        if ahead is None:
            ahead = await self.broker.position(generation)
        eta = await self._eta_seconds(generation, ahead)
        return record_of(generation, queue_position=ahead, eta_seconds=eta)

    async def served(self) -> dict[str, bool] | None:
        """Of each checkpoint, whether a worker is ready; None where the queue cannot be asked."""
        try:
            queues = await self.broker.queues(list(self.catalog))
        except BrokerUnavailable:
            return None
        return {q.checkpoint: any(worker.state == "ready" for worker in q.workers) for q in queues}

    async def _eta_seconds(self, generation: Generation, ahead: int | None) -> float | None:
        if generation.status is GenerationState.RUNNING:
            return _rest_seconds(generation, time.time())
        if ahead is None:
            return None
        try:
            queue = await self._look(generation.checkpoint)
        except BrokerUnavailable:  # It was accepted: a missing prediction must not undo the answer.
            return None
        seconds = queue.wait_seconds(queue.running + ahead + 1)
        return None if seconds is None else round(seconds, 3)

    async def _look(self, checkpoint: str) -> QueueInfo:
        now = time.monotonic()
        then, queue = self.looks.get(checkpoint, (0.0, None))
        if queue is None or now - then > LOOK_SECONDS:
            queue = await self.broker.queue(checkpoint)
            self.looks[checkpoint] = now, queue
        return queue


def _rest_seconds(generation: Generation, now: float) -> float | None:
    """What is left of a running one, if it goes on at its pace so far."""
    done, began = generation.progress.fraction, generation.started_at
    if not done or began is None:
        return None
    return round(max(0.0, now - began) * (1 - done) / done, 3)


async def gateway(request: Request) -> Gateway:
    """The parts `create_app` was given."""
    here: Gateway = request.app.state.gateway
    return here


async def caller(request: Request) -> str:
    """Who owns what this request makes and sees. Without API keys everybody is one owner."""
    return "local"


def _well_formed(id: str) -> str:
    if not re.fullmatch(GENERATION_ID, id):
        raise NotFound(f"there is no generation {id[:80]!r}")
    return id


Gate = Annotated[Gateway, Depends(gateway)]
Caller = Annotated[str, Depends(caller)]
GenerationId = Annotated[
    str,
    Path(description="The id of a generation.", examples=[EXAMPLE_ID]),
    AfterValidator(_well_formed),
]
