"""Whose settings count, and what they come to: A1111's options are routing for one caller here,
never a change of what a worker has loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from server.api.a1111.names import card_of, stem, unsaid
from server.api.a1111.noted import ignored
from server.api.a1111.schemas import Options
from server.api.deps import Gateway, caller
from server.catalog import Card
from server.errors import Forbidden, NotFound
from server.spec import GENERATION_ID, MAX_PREVIEWS, OutputFormat, Warn, new_generation_id

COOKIE = "darkroom_session"
COOKIE_SECONDS = 30 * 86_400
BROUGHT = re.compile(rf"(?:^|;) *{COOKIE}=({GENERATION_ID.strip('^$')}) *(?:;|$)")
"""Among other cookies. It is made as ids are, so that it says what was begun before it."""
NOBODY = "local"
"""The owner of everything, where there are no API keys."""

FORMATS = {"png": OutputFormat.PNG, "webp": OutputFormat.WEBP} | dict.fromkeys(
    ("jpg", "jpeg"), OutputFormat.JPEG
)
STEPS_BETWEEN_PREVIEWS = 10
KNOWN = frozenset(Options.model_fields)


@dataclass(frozen=True, slots=True)
class Session:
    """Who calls, as far as this door can tell."""

    owner: str
    own: str
    """Under which what they set and have drawn is kept."""
    fresh: str | None = None
    """The cookie to set."""
    heir: str = ""
    """What `own` will be for who brings that cookie."""
    before: str = ""
    """What `own` was before they had their cookie, which says when that was."""
    since: str = ""

    def remember(self, response: Response) -> None:
        """Let the client bring its cookie from now on."""
        if self.fresh is not None:
            response.set_cookie(
                COOKIE, self.fresh, max_age=COOKIE_SECONDS, httponly=True, samesite="lax"
            )


async def session_of(request: Request) -> Session:
    """By API key; without one by address, and by the cookie of this door where it is brought."""
    owner = await caller(request)
    if owner != NOBODY:
        return Session(owner, _digest(f"owner {owner}"))
    address = f"address {request.client.host if request.client else ''}"
    # Not `request.cookies`: what quotes and backslashes it takes apart takes seconds.
    brought = BROUGHT.search(request.headers.get("cookie", ""))
    cookie = new_generation_id() if brought is None else brought[1]
    without, within = _digest(address), _digest(f"{address} cookie {cookie}")
    if brought is None:
        return Session(owner, without, fresh=cookie, heir=within)
    return Session(owner, within, before=without, since=cookie)


async def keep(gate: Gateway, session: Session, values: Mapping[str, Any]) -> None:
    """Let these be the caller's settings, also when they bring the cookie they are given now."""
    await gate.broker.sessions.set(session.own, values)
    if session.fresh is not None:
        await gate.broker.sessions.set(session.heir, values)


async def settings_of(gate: Gateway, session: Session) -> dict[str, Any]:
    """What this caller has set."""
    return await gate.broker.sessions.settings(session.own)


def chosen(gate: Gateway, settings: Mapping[str, Any]) -> Card:
    """The checkpoint of these settings, or the default one.

    Raises:
        NotFound: there is none of this name.
    """
    name = settings.get("sd_model_checkpoint")
    if name is None or unsaid(name):
        return gate.card(None)
    return card_of(name, gate.catalog, "sd_model_checkpoint")


def told(gate: Gateway, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every option that means something, at its value for this caller."""
    try:
        card = chosen(gate, settings)
    except (NotFound, Forbidden):  # its card has been removed since
        card = gate.card(None)
    return {
        "sd_model_checkpoint": card.name,
        "sd_vae": settings.get("sd_vae", "Automatic"),
        "CLIP_stop_at_last_layers": settings.get(
            "CLIP_stop_at_last_layers", card.defaults.clip_skip + 1
        ),
        "samples_format": settings.get("samples_format", card.defaults.output_format.value),
        "live_previews_enable": settings.get("live_previews_enable", True),
        "show_progress_every_n_steps": settings.get(
            "show_progress_every_n_steps", STEPS_BETWEEN_PREVIEWS
        ),
    }


def given(options: Options | None) -> dict[str, Any]:
    """The options of a request that mean something and are not null."""
    if options is None:
        return {}
    return options.model_dump(include=set(KNOWN), exclude_none=True)


def fields_of(settings: Mapping[str, Any], card: Card, steps: int) -> dict[str, Any]:
    """What settings come to in a request for a generation."""
    fields: dict[str, Any] = {"previews": _previews(settings, steps, card)}
    if (vae := settings.get("sd_vae")) is not None and not unsaid(vae):
        fields["vae"] = stem(vae)
    if (layers := settings.get("CLIP_stop_at_last_layers")) is not None:
        fields["clip_skip"] = min(layers - 1, card.limits.max_clip_skip)
    if (form := FORMATS.get(str(settings.get("samples_format")).lower())) is not None:
        fields["output_format"] = form
    return fields


def remarks(settings: Mapping[str, Any], card: Card) -> Iterator[Warn]:
    """What of these settings is not followed."""
    form = settings.get("samples_format")
    if form is not None and form.lower() not in FORMATS:
        yield ignored("samples_format", f"{form[:20]!r} is not made here: png, jpeg and webp are")
    layers, most = settings.get("CLIP_stop_at_last_layers"), card.limits.max_clip_skip + 1
    if layers is not None and layers > most:
        why = f"{layers} is drawn as {most}, the most for {card.name}"
        yield ignored("CLIP_stop_at_last_layers", why)


def _previews(settings: Mapping[str, Any], steps: int, card: Card) -> int:
    """How many of each picture."""
    every: int = settings.get("show_progress_every_n_steps", STEPS_BETWEEN_PREVIEWS)
    if not settings.get("live_previews_enable", True) or every < 1 or card.safety.hides:
        return 0
    return max(0, min(MAX_PREVIEWS, (steps - 1) // every))


def _digest(who: str) -> str:
    """Addresses and cookies are not kept."""
    return hashlib.sha256(who.encode()).hexdigest()[:32]
