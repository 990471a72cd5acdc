"""What routes are given: the parts of the gateway, and who is calling."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as Folder
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from pydantic import AfterValidator

from server.api.examples import EXAMPLE_ID
from server.api.outlook import Outlook, Prospect, admissible
from server.api.records import GenerationRecord, record_of
from server.api.space import Space
from server.api.streams import Streams
from server.api.tokenizers import Tokenizers
from server.api.webhooks.messenger import Messenger
from server.broker import LOCAL, Account, Broker, Generation, Terms
from server.catalog import Card, Catalog
from server.errors import BrokerUnavailable, InvalidSpec, NotFound
from server.exposition import Exposition
from server.metrics import GatewayMetrics
from server.spec import GENERATION_ID, AnySpec
from server.stages import stages
from server.storage import ImageStore
from server.tracing import SILENT, Tracer


@dataclass(frozen=True, slots=True)
class Gateway:
    """One per process: what the routes work with."""

    broker: Broker
    catalog: Catalog
    store: ImageStore
    tokenizers: Tokenizers
    metrics: GatewayMetrics
    exposition: Exposition
    max_body_bytes: int
    max_wait_seconds: float
    default_checkpoint: str
    aliases: Mapping[str, str]
    """Other names for checkpoints at the OpenAI door."""
    models: Folder | None
    """Where LoRAs and autoencoders lie, if that can be seen from here."""
    decoders: asyncio.Semaphore
    outlook: Outlook
    abandoned_seconds: float
    """After how long a generation is canceled that nobody waits for any more; 0: never."""
    tasks: set[asyncio.Task[None]]
    streams: Streams
    messenger: Messenger | None
    """Who calls webhooks; None where there is no secret to sign them with."""
    space: Space
    expected: tuple[str, ...] = ()
    """Checkpoints that ought to be served."""
    presigned_seconds: int = 0
    """How long a URL of the image store is good; 0: none is given out."""
    tracer: Tracer = SILENT
    log_prompts: bool = False
    account: Account = LOCAL
    """Whose request is being answered."""

    def card(self, name: str | None) -> Card:
        """The card of that name, or of the default checkpoint.

        Raises:
            UnknownCheckpoint: the catalog has none of this name.
        """
        return self.catalog[self.default_checkpoint if name is None else name]

    def of(self, account: Account) -> Gateway:
        """The same as far as this account may use it."""
        if not account.checkpoints:
            return self if account is LOCAL else replace(self, account=account)
        catalog = self.catalog.only(account.checkpoints)
        default = self.default_checkpoint
        return replace(
            self,
            account=account,
            catalog=catalog,
            default_checkpoint=default if default in catalog else next(iter(catalog), default),
            aliases={alias: name for alias, name in self.aliases.items() if name in catalog},
        )

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the request, which may be over before."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def record(self, generation: Generation) -> GenerationRecord:
        """The record, with its place in the queue."""
        ahead, eta = await self.outlook.foresee(generation)
        return record_of(generation, queue_position=ahead, eta_seconds=eta)

    async def served(self) -> dict[str, bool] | None:
        """Of each checkpoint, whether a worker is ready; None where the queue cannot be asked."""
        try:
            queues = await self.broker.queues(list(self.catalog))
        except BrokerUnavailable:
            return None
        return {q.checkpoint: any(worker.state == "ready" for worker in q.workers) for q in queues}


async def terms_of(gate: Gateway, spec: AnySpec, seed: int | None) -> tuple[Prospect, Terms]:
    """What a generation takes, and on which terms it is accepted. `seed` is the one that was asked
    for.

    Raises:
        InvalidSpec: it can never be done: it is too large, its deadline too close, or it is more
            than the key has in a day.
        BrokerUnavailable: the queues cannot be looked at.
    """
    drawn = stages(spec)
    await gate.outlook.fits(drawn)
    prospect = await gate.outlook.prospect(drawn)
    admissible(spec, prospect)
    day, whole = gate.account.daily_seconds, sum(prospect.works)
    if day and whole > day:
        raise InvalidSpec(
            f"it takes about {whole:.0f} seconds, and your key has {day:g} a day; ask for fewer "
            "steps, fewer images or a smaller size"
        )
    account, terms = gate.account, gate.outlook.terms(prospect, spec.deadline_seconds)
    return prospect, replace(
        terms,
        like=_like(spec, seed),
        owner_living=account.max_concurrent,
        owner_seconds=account.max_queued_seconds,
        owner_daily=account.daily_seconds,
    )


def _like(spec: AnySpec, seed: int | None) -> str:
    """What a request that was refused is known by when it comes again."""
    size = spec.width, spec.height, spec.num_images, spec.num_inference_steps
    asked = spec.task, spec.prompt, spec.negative_prompt, size, seed
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]


async def gateway(request: Request) -> Gateway:
    """The parts `create_app` was given, as far as this request may use them."""
    here: Gateway = request.app.state.gateway
    return here.of(await account(request))


async def account(request: Request) -> Account:
    """Whose request this is. Without API keys everybody is one account, which may do everything."""
    found: Account = request.state.account
    return found


async def caller(request: Request) -> str:
    """Who owns what this request makes and sees."""
    return (await account(request)).id


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
