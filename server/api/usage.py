"""What a key has used, and what it may; for an admin, what every key has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from server.api import openapi
from server.api.deps import Gate
from server.api.negotiation import JSON
from server.api.records import rfc3339
from server.broker import Account, KeyState, Scope, Share, Tally
from server.broker.keys import DAY_SECONDS
from server.errors import BrokerUnavailable

EXAMPLE: dict[str, Any] = {
    "account": {
        "id": "4f1c9f0e81aa",
        "name": "web shop",
        "scopes": ["generate"],
        "checkpoints": ["demo"],
        "weight": 1.0,
        "expires_at": None,
    },
    "limits": {
        "generations": 16,
        "queued_seconds": None,
        "daily_seconds": 3600.0,
        "requests_per_minute": 300,
    },
    "generations": 3,
    "queued_seconds": {"demo": 4.5},
    "daily_seconds": 812.25,
    "resets_at": "2026-11-22T00:00:00.000Z",
}

ALL_EXAMPLE: dict[str, Any] = {
    "accounts": [
        {
            **EXAMPLE,
            "account": {
                **EXAMPLE["account"],
                "state": "good",
                "created_at": "2026-03-01T09:30:00.000Z",
                "revoked_at": None,
                "last_used_at": "2026-11-21T14:05:00.000Z",
            },
            "queued": 2,
            "running": 1,
        }
    ]
}

router = APIRouter(prefix="/v1", tags=["system"])


class AccountRecord(BaseModel):
    """Whose key this is."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    checkpoints: tuple[str, ...] = Field(description="Which it may draw with; none: all.")
    weight: float = Field(description="Its share of turns, beside those of other keys.")
    expires_at: str | None


class LimitsRecord(BaseModel):
    """What the key may have; null: as much as there is. Seconds are of work, as predicted."""

    generations: int | None = Field(description="Queued or running at once.")
    queued_seconds: float | None = Field(description="That may wait in one queue.")
    daily_seconds: float | None = Field(description="That are drawn within a day, by UTC.")
    requests_per_minute: int | None


class UsageRecord(BaseModel):
    """What the caller's key has, and what it may have."""

    account: AccountRecord
    limits: LimitsRecord
    generations: int = Field(description="Queued or running now.")
    queued_seconds: dict[str, float] = Field(
        description="Predicted seconds of work that wait, by checkpoint."
    )
    daily_seconds: float = Field(description="Of work that was begun today, by UTC.")
    resets_at: str = Field(description="When the day ends.")


class KeyRecord(AccountRecord):
    """A key that was made once. Times of use are to the minute, and known within half a minute."""

    state: KeyState
    created_at: str
    revoked_at: str | None
    last_used_at: str | None


class KeyUsageRecord(UsageRecord):
    """What one key has, and what it may have."""

    account: KeyRecord
    queued: int
    running: int


class UsageList(BaseModel):
    """What every key has, oldest key first; those that are good no more, too."""

    accounts: tuple[KeyUsageRecord, ...]


@router.get(
    "/usage",
    summary="What your key has used",
    operation_id="get_usage",
    response_model=UsageRecord,
    responses=openapi.responses(
        {200: openapi.answer("What it has, and what it may have.", EXAMPLE)}, BrokerUnavailable
    ),
)
async def get_usage(gate: Gate) -> Response:
    """What the caller's key has queued, running and drawn today, beside what it may have."""
    account = gate.account
    used = await gate.broker.usage(account.id, list(gate.catalog))
    found = UsageRecord(
        account=AccountRecord(**_account(account)),
        limits=_limits(account),
        generations=used.living,
        queued_seconds=_rounded(used.queued_seconds),
        daily_seconds=round(used.spent_seconds, 3),
        resets_at=_tomorrow(),
    )
    return Response(found.model_dump_json(), media_type=JSON)


@router.get(
    "/usage/accounts",
    summary="What every key has used",
    operation_id="list_usage",
    response_model=UsageList,
    responses=openapi.responses(
        {200: openapi.answer("What each has, and what it may have.", ALL_EXAMPLE)},
        BrokerUnavailable,
    ),
)
async def list_usage(gate: Gate) -> Response:
    """What each key has queued, running and drawn today, beside what it may have, and when it was
    last used. Nobody can have a key said again."""
    found = usage_list(await gate.broker.tallies())
    return Response(found.model_dump_json(), media_type=JSON)


def usage_list(tallies: Sequence[Tally]) -> UsageList:
    """As the API says it; `darkroom keys list --json` says the same."""
    return UsageList(accounts=tuple(map(_key_usage, tallies)))


def _key_usage(tally: Tally) -> KeyUsageRecord:
    account, now = tally.account, time.time()
    return KeyUsageRecord(
        account=KeyRecord(
            **_account(account),
            state=account.state(now),
            created_at=rfc3339(account.created_at),
            revoked_at=None if account.revoked_at is None else rfc3339(account.revoked_at),
            last_used_at=None if tally.seen_at is None else rfc3339(tally.seen_at),
        ),
        limits=_limits(account),
        generations=tally.queued + tally.running,
        queued=tally.queued,
        running=tally.running,
        queued_seconds=_rounded(tally.queued_seconds),
        daily_seconds=round(tally.spent_seconds, 3),
        resets_at=_tomorrow(),
    )


def quota_headers(account: Account, share: Share | None) -> dict[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers has it: what the key may have, and what is left."""
    if share is None:
        return {}
    policies, left = [], []
    if account.max_concurrent:
        policies.append(f'"generations";q={account.max_concurrent}')
        left.append(f'"generations";r={max(0, account.max_concurrent - share.living)}')
    if account.daily_seconds:
        rest = max(0.0, account.daily_seconds - share.daily_seconds)
        resets = DAY_SECONDS - int(time.time()) % DAY_SECONDS
        policies.append(f'"daily-seconds";q={int(account.daily_seconds)};w={DAY_SECONDS}')
        left.append(f'"daily-seconds";r={int(rest)};t={resets}')
    names = "RateLimit-Policy", "RateLimit"
    return dict(zip(names, map(", ".join, (policies, left)), strict=True)) if left else {}


def _account(account: Account) -> dict[str, Any]:
    fields = account.model_dump(include={"id", "name", "scopes", "checkpoints", "weight"})
    expires_at = None if account.expires_at is None else rfc3339(account.expires_at)
    return fields | {"expires_at": expires_at}


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(load, 3) for name, load in seconds.items()}


def _tomorrow() -> str:
    return rfc3339((time.time() // DAY_SECONDS + 1) * DAY_SECONDS)


def _limits(account: Account) -> LimitsRecord:
    return LimitsRecord(
        generations=account.max_concurrent or None,
        queued_seconds=account.max_queued_seconds or None,
        daily_seconds=account.daily_seconds or None,
        requests_per_minute=account.requests_per_minute or None,
    )
