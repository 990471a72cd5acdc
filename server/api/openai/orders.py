"""From what a caller of the OpenAI Images API said to a generation. Knows cards; knows no HTTP.

What has no meaning here, or is drawn otherwise than asked, becomes a warning; `strict` makes each
of them a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.api.deps import Gateway
from server.api.openai import sizes
from server.api.openai.masks import repainted
from server.api.openai.names import ANSWERED_WITH_ADDRESSES, checkpoint_of
from server.api.openai.reading import Read
from server.api.openai.requests import TWINS, EditRequest, ImagesRequest, VariationRequest
from server.api.schemas import GenerationRequest
from server.api.uploads import glimpsed, sent_pictures
from server.catalog import Card
from server.errors import FieldError, InvalidRequest, InvalidSpec
from server.spec import UPLOADED, Task, Warn

VARIATION_STRENGTH = 0.6
"""Enough is drawn again to differ, and enough stays to recognize it by."""

SEES_THROUGH = "dall-e-2"
"""The one model whose picture is its own mask, where it is transparent and no mask was sent."""

UNHEARD = {
    "quality": "num_inference_steps decides",
    "style": "the prompt decides",
    "moderation": "the checkpoint's card decides",
    "input_fidelity": "strength decides",
    "output_compression": "each format has its own",
    "complexity": "num_inference_steps decides",
    "user": "nobody is told apart by it",
    "safety_identifier": "nobody is told apart by it",
}
"""OpenAI's fields that have no meaning here, and why."""

PICTURES = frozenset(UPLOADED)
UNSAID = (None, "", "auto")

Fields = dict[str, Any]
Pictures = dict[str, str | bytes]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a request is answered."""

    warnings: tuple[Warn, ...]
    streamed: bool
    by_address: bool
    """With URLs instead of pictures."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """A request, understood."""

    asked: GenerationRequest
    files: Mapping[str, bytes]
    manner: Manner


async def ordered(gate: Gateway, read: Read) -> Ordered:
    """What is to be drawn, what that leaves out, and how to answer.

    Raises:
        InvalidRequest, InvalidSpec: it cannot be told what is meant, or `strict` forbids it.
    """
    asked = read.asked
    _refuse_twice(asked, read)
    card, substituted = _card(gate, asked)
    sent, unused = _pictures(read)
    sent |= await _mask(gate, read, sent, card)
    size, resized = await _size(asked, card, sent)
    warnings = [w for w in (substituted, unused, resized, *_unheard(asked)) if w is not None]
    if asked.strict and warnings:
        raise InvalidSpec.of([FieldError(w.field or "", w.message) for w in warnings])
    texts = {name: content for name, content in sent.items() if isinstance(content, str)}
    fields = _native(asked) | _implied(asked, sent) | size | texts | {"checkpoint": card.name}
    return Ordered(
        asked=GenerationRequest(**fields),
        files={name: content for name, content in sent.items() if isinstance(content, bytes)},
        manner=Manner(tuple(warnings), bool(asked.stream), _by_address(asked)),
    )


def _refuse_twice(asked: ImagesRequest, read: Read) -> None:
    given = {name for name in asked.model_fields_set if getattr(asked, name) not in UNSAID}
    given |= read.files.keys()
    given |= {"images"} if read.images else set()
    given |= {"mask"} if read.mask is not None else set()
    for said, natives in TWINS.items():
        for native in natives:
            if said in given and native in given:
                message = f"{said} and {native} say the same; send one of them"
                raise InvalidRequest(message, field=said)


def _card(gate: Gateway, asked: ImagesRequest) -> tuple[Card, Warn | None]:
    if not asked.model:
        return gate.card(asked.checkpoint), None
    default = gate.default_checkpoint
    name, warning = checkpoint_of(asked.model, gate.aliases, gate.catalog, default)
    return gate.catalog[name], warning


def _pictures(read: Read) -> tuple[Pictures, Warn | None]:
    """Those that a generation is drawn from, but for OpenAI's mask."""
    sent = sent_pictures(read.asked, read.files)
    if read.images:
        sent["image"] = read.images[0]
    if len(read.images) < 2:
        return sent, None
    message = f"image: only the first of {len(read.images)} pictures is drawn from"
    return sent, Warn(code="images_ignored", message=message, field="image")


async def _mask(gate: Gateway, read: Read, sent: Pictures, card: Card) -> dict[str, bytes]:
    """Our mask, where there is one of OpenAI's."""
    hollow = read.asked.model == SEES_THROUGH and isinstance(read.asked, EditRequest)
    if read.mask is not None:
        content, field = read.mask, "mask"
    elif hollow and "image" in sent and "mask_image" not in sent:
        content, field = sent["image"], "image"
    else:
        return {}
    async with gate.decoders:
        limit = card.limits.max_input_pixels
        found = await asyncio.to_thread(repainted, content, field, limit)
    if found is None and field == "mask":
        rule = "what is transparent in it is drawn again"
        other = "a black and white one goes into mask_image"
        raise InvalidSpec(f"mask: has nothing transparent; {rule} ({other})", field="mask")
    return {} if found is None else {"mask_image": found}


async def _size(
    asked: ImagesRequest, card: Card, sent: Pictures
) -> tuple[dict[str, int], Warn | None]:
    """Width and height, where the card's native size or the picture's own will not do."""
    wanted, what = sizes.parsed(asked.size), "size"
    if asked.task is Task.UPSCALE and wanted is not None:  # it is four times the image's, or wrong
        return {"width": wanted[0], "height": wanted[1]}, None
    if asked.task is Task.UPSCALE or asked.width is not None or asked.height is not None:
        return {}, None
    if wanted is None and "image" in sent:
        wanted, what = await asyncio.to_thread(glimpsed, sent["image"]), "image"
        if wanted is not None and sizes.fits(wanted, card):
            return {}, None  # or nearly: the resolving of the spec says so
    if wanted is None:
        return {}, None
    (width, height), warning = sizes.drawable(wanted, card, what=what)
    return {"width": width, "height": height}, warning


def _native(asked: ImagesRequest) -> Fields:
    """Those of its fields that are a generation's, as far as they were said."""
    said = asked.model_fields_set & GenerationRequest.model_fields.keys()
    return {name: getattr(asked, name) for name in said - PICTURES}


def _implied(asked: ImagesRequest, sent: Pictures) -> Fields:
    """What follows from the operation and from OpenAI's own fields."""
    fields: Fields = {}
    if asked.n is not None:
        fields["num_images"] = asked.n
    if asked.stream and asked.partial_images is not None:
        fields["previews"] = asked.partial_images
    if isinstance(asked, VariationRequest):
        fields["prompt"] = asked.prompt  # which has a default here, and none in a generation
    if "task" in asked.model_fields_set:
        return fields
    if isinstance(asked, EditRequest):
        masked = "mask_image" in sent
        fields["task"] = Task.INPAINTING if masked else Task.IMAGE_TO_IMAGE
    if isinstance(asked, VariationRequest):
        fields["task"] = Task.IMAGE_TO_IMAGE
        if asked.strength is None:
            fields["strength"] = VARIATION_STRENGTH
    return fields


def _unheard(asked: ImagesRequest) -> Iterator[Warn]:
    """What has no meaning here, or none in this request."""
    told = dict(UNHEARD)
    if asked.background == "transparent":
        told["background"] = "pictures are opaque"
    if not asked.stream and asked.partial_images:
        told["partial_images"] = "the answer is not streamed"
    if asked.stream and asked.response_format == "url":
        told["response_format"] = "a stream holds the pictures themselves"
    for field, why in told.items():
        if getattr(asked, field) not in UNSAID:
            message = f"{field}: is ignored, {why}"
            yield Warn(code=f"{field}_ignored", message=message, field=field)


def _by_address(asked: ImagesRequest) -> bool:
    if asked.response_format is not None:
        return asked.response_format == "url"
    return (asked.model or "").startswith(ANSWERED_WITH_ADDRESSES)
