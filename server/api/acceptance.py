"""From a request that was read to a generation that is queued: the same for every door."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import partial

from server.api import visits
from server.api.adapters import check_names
from server.api.deps import Gateway, terms_of
from server.api.inputs import WHITE
from server.api.resolve import to_spec
from server.api.schemas import GenerationRequest
from server.api.uploads import MASK, discard, read_pictures, sent_pictures, store
from server.api.webhooks.asked import webhook_of
from server.broker import Generation, Idempotency, Replay
from server.errors import (
    BrokerUnavailable,
    DarkroomError,
    FieldError,
    InvalidSpec,
    NoWorker,
    StorageFull,
)
from server.spec import AnySpec, Upload, Warn, new_generation_id
from server.stages import checkpoints

LONG = 4096
"""Characters of prompts that are read in a few milliseconds at most."""


async def accept(
    gate: Gateway,
    owner: str,
    asked: GenerationRequest,
    files: Mapping[str, bytes],
    *,
    idempotency: Idempotency | None = None,
    noted: Sequence[Warn] = (),
    replay: Replay | None = None,
) -> tuple[Generation, bool]:
    """Check all of it, store what was sent with it, and queue it.

    `noted` is what was ignored or substituted on the way to this request, `replay` what the picture
    is compared with.

    Returns:
        The record, and whether it was made now; not, where `idempotency` found one.

    Raises:
        DarkroomError: nothing is queued and nothing is kept, but for `BrokerUnavailable`: then the
            outcome is unknown.
    """
    if asked.strict and noted:
        raise InvalidSpec.of([FieldError(warn.field or "", warn.message) for warn in noted])
    webhook = webhook_of(asked.webhook, gate.messenger)
    card = gate.card(asked.checkpoint)
    limit = card.limits.max_input_pixels
    pictures = await read_pictures(sent_pictures(asked, files), gate.decoders, limit)
    id = new_generation_id()
    uploads = {field: picture.upload(id, field) for field, picture in pictures.items()}
    brightest = pictures[MASK].brightest if MASK in pictures else WHITE
    resolved = partial(to_spec, asked, card, gate.catalog, uploads, brightest)
    spec, warnings = await asyncio.to_thread(resolved) if _is_long(asked) else resolved()
    await check_names(spec, gate.models)
    try:
        prospect, terms = await terms_of(gate, spec, asked.seed)
        await gate.space.check()
    except (InvalidSpec, StorageFull):
        if earlier := await _earlier(gate, owner, idempotency):
            return earlier, False
        raise
    await store(gate.store, uploads, pictures)
    submit = partial(gate.broker.submit, spec, owner=owner, id=id, warnings=(*noted, *warnings))
    submit = partial(submit, works=prospect.works, demand=prospect.demand, foresee=prospect.seconds)
    here = visits.current().traceparent
    submit = partial(submit, weight=gate.account.weight, terms=terms, traceparent=here)
    submitting = submit(idempotency=idempotency, webhook=webhook, replay=replay)
    generation, made = await _submitted(gate, spec, uploads, submitting)
    if made:
        gate.metrics.generations_accepted_total.labels(spec.checkpoint).inc()
    visits.accepted(gate, generation, made=made)
    return generation, made


async def _earlier(gate: Gateway, owner: str, idempotency: Idempotency | None) -> Generation | None:
    """What would be refused now may have been accepted when it came for the first time."""
    if idempotency is None:
        return None
    return await gate.broker.earlier(idempotency, owner=owner)


async def _submitted(
    gate: Gateway,
    spec: AnySpec,
    uploads: Mapping[str, Upload],
    submitting: Awaitable[tuple[Generation, bool]],
) -> tuple[Generation, bool]:
    """What comes of it. Pictures are kept only where something was queued with them."""
    try:
        generation, made = await submitting
    except BrokerUnavailable:
        raise  # It may have been accepted: then its worker needs what was stored.
    except NoWorker as error:
        await discard(gate.store, uploads)
        raise await _unserved(gate, spec, error) from None
    except DarkroomError:
        await discard(gate.store, uploads)
        raise
    if not made:
        await discard(gate.store, uploads)
    return generation, made


async def _unserved(gate: Gateway, spec: AnySpec, error: NoWorker) -> NoWorker:
    """The error, and what can be done: ask for what is served, or serve what was asked for."""
    served = await gate.served()
    if served is None:
        return error
    ready = ", ".join(name for name, is_ready in served.items() if is_ready) or "none"
    missing = [name for name in checkpoints(spec) if not served[name]]
    more = " ".join(f"--worker {name}" for name in missing)
    message = f"{error.message}; served now: {ready}; to serve it, add `{more}` to `darkroom serve`"
    return NoWorker(message, field=error.field, retry_after=error.retry_after)


@contextlib.contextmanager
def refusals_counted(gate: Gateway) -> Iterator[None]:
    """Around reading a request and accepting it."""
    try:
        yield
    except DarkroomError as error:
        gate.metrics.generations_refused_total.labels(error.code).inc()
        raise


def _is_long(asked: GenerationRequest) -> bool:
    """Whether it takes so long to read its brackets that other requests would notice."""
    texts = asked.prompt, asked.negative_prompt, asked.prompt_2, asked.negative_prompt_2
    return sum(len(text) for text in texts if text) > LONG
