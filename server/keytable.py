"""How API keys are shown to people: what each may do, and what it has. Asks nobody."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.markup import escape
from rich.table import Column, Table

from server.broker.accounts import Account, KeyState
from server.broker.usage import Tally

NAMES = ("name", "state", "scopes", "checkpoints", "limits", "now", "today", "last used", "made")


def table_of(tallies: Sequence[Tally]) -> Table:
    """A row for each, in their order."""
    columns = (Column(name, overflow="fold") for name in NAMES)
    table = Table(Column("id", no_wrap=True), *columns, box=None)
    for tally in tallies:
        table.add_row(*_row(tally))
    return table


def _row(tally: Tally) -> tuple[str, ...]:
    account = tally.account
    return (
        account.id,
        escape(account.name),
        _state(account),
        " ".join(account.scopes),
        " ".join(account.checkpoints) or "all",
        _limits(account),
        _now(tally),
        _today(tally),
        day(tally.seen_at),
        day(account.created_at),
    )


def _limits(account: Account) -> str:
    limits = {
        "a minute": account.requests_per_minute,
        "at once": account.max_concurrent,
        "s queued": account.max_queued_seconds,
        "s a day": account.daily_seconds,
    }
    said = [f"{value:g} {unit}" for unit, value in limits.items() if value]
    if account.weight != 1:
        said.append(f"weight {account.weight:g}")
    return ", ".join(said) or "none"


def _now(tally: Tally) -> str:
    counts = {"running": tally.running, "queued": tally.queued}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "-"


def _today(tally: Tally) -> str:
    whole = tally.account.daily_seconds
    return f"{tally.spent_seconds:.1f}{f' of {whole:g}' if whole else ''} s"


def _state(account: Account) -> str:
    state = account.state(time.time())
    if state is KeyState.REVOKED:
        return f"revoked {day(account.revoked_at)}"
    if account.expires_at is None:
        return "good"
    return f"{'expired' if state is KeyState.EXPIRED else 'good until'} {day(account.expires_at)}"


def day(at: float | None) -> str:
    """By UTC, to the minute; `never` where there is no such time."""
    if at is None:
        return "never"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
