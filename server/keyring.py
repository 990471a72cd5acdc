"""The commands `darkroom keys`: making, listing and revoking API keys. They write to Redis, where
every gateway looks at each request; no server needs to run."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from server.errors import DarkroomError
from server.options import CatalogFile, DataDir, RedisUrl, settings_of

if TYPE_CHECKING:
    import redis

    from server.broker.accounts import Account
    from server.config import Settings

SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
LOCKING_SECONDS = 1.0
"""Within this time every gateway that can reach Redis has noticed that the house is locked."""
SCOPES = ("read", "generate", "admin")
MOST = 10**9
"""Of any limit: what is more can be counted by nobody, and means that there is none."""
LONGEST_NAME = 100

keys = typer.Typer(no_args_is_help=True, help="Who may use this Darkroom: API keys.")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, or what it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="read, generate (and read) or admin (and all else). Repeat it for more.",
            show_default="generate",
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="May draw with this one; repeat it.", show_default="all"),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="30d, 12h, 90m or 4w from now.", show_default="never"),
    ] = None,
    weight: Annotated[
        float, typer.Option(min=0.01, max=100, help="Share of turns, beside those of other keys.")
    ] = 1.0,
    rate: Annotated[
        int,
        typer.Option(min=0, max=MOST, help="Requests a minute at most.", show_default="no limit"),
    ] = 0,
    concurrent: Annotated[
        int,
        typer.Option(
            min=0, max=MOST, help="Generations queued or running at once.", show_default="no limit"
        ),
    ] = 0,
    queued_seconds: Annotated[
        float,
        typer.Option(min=0, max=MOST, help="Predicted seconds that wait.", show_default="no limit"),
    ] = 0.0,
    daily_seconds: Annotated[
        float,
        typer.Option(
            min=0, max=MOST, help="Predicted device seconds a day.", show_default="no limit"
        ),
    ] = 0.0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the key and nothing else.")
    ] = False,
    redis: RedisUrl = None,
    data_dir: DataDir = None,
    catalog: CatalogFile = None,
) -> None:
    """Make a key. It is shown once; what is kept is its hash.

    The first one locks the house: from then on every door wants a key, of everybody. Into a pipe or
    a file goes the key alone.

    [bold]Examples[/]

      darkroom keys create shop --checkpoint sdxl-base --concurrent 4 --expires 90d
      darkroom keys create dashboards --scope read
      DARKROOM_KEY=dr_… darkroom generate "a red circle"
    """
    settings = settings_of(redis=redis, data_dir=data_dir, catalog=catalog)
    terms = {
        "scopes": _scopes(scope or ["generate"]),
        "checkpoints": _checkpoints(checkpoint or [], settings),
        "expires_at": None if expires is None else time.time() + _seconds(expires),
        "weight": weight,
        "requests_per_minute": rate,
        "max_concurrent": concurrent,
        "max_queued_seconds": queued_seconds,
        "daily_seconds": daily_seconds,
    }
    from server.broker import accounts

    name = _name(name)
    with _kept(settings) as client:
        account, key, locked = accounts.create(client, name, **terms)
        if locked:
            time.sleep(LOCKING_SECONDS)
    typer.echo(key)
    if quiet or not sys.stdout.isatty():
        return
    typer.echo(f"\n{account.name}, {account.id}: {', '.join(account.scopes)}", err=True)
    typer.echo("Keep it now: it is not shown again.", err=True)
    if locked:
        typer.echo("It is the first one: from now on every door wants a key.", err=True)


@keys.command("list")
def list_keys(redis: RedisUrl = None, data_dir: DataDir = None) -> None:
    """Every key that was ever made, oldest first: what it may do, and whether it still may."""
    from rich.console import Console
    from rich.table import Column, Table

    from server.broker import accounts

    with _kept(settings_of(redis=redis, data_dir=data_dir)) as client:
        found = accounts.every(client)
    names = ("name", "state", "scopes", "checkpoints", "limits", "made")
    table = Table(Column("id", no_wrap=True), *names, box=None)
    for account in found:
        table.add_row(*_row(account))
    console = Console()
    if not console.is_terminal:
        console.width = 10_000
    nobody = "There are no keys: whoever reaches this Darkroom may use it."
    console.print(table if found else nobody)


@keys.command("revoke")
def revoke_key(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `darkroom keys list` says it.")],
    redis: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Let a key open nothing any more, from its next request on. What it made is kept."""
    from server.broker import accounts

    with _kept(settings_of(redis=redis, data_dir=data_dir)) as client:
        account = accounts.revoke(client, id.removeprefix("dr_").partition("_")[0])
    typer.echo(f"{account.name}, {account.id}: revoked")


@contextlib.contextmanager
def _kept(settings: Settings) -> Iterator[redis.Redis]:
    """Where they are kept: the Redis that is named, or that of the data directory, which need not
    run."""
    import redis

    from server.embedded import reached

    with contextlib.ExitStack() as stack:
        url = settings.redis or stack.enter_context(reached(settings.data_dir))
        client = stack.enter_context(
            contextlib.closing(redis.Redis.from_url(url, socket_timeout=10.0))
        )
        try:
            yield client
        except redis.RedisError as error:
            raise DarkroomError(f"Redis does not answer, or refuses: {error}") from error


def _row(account: Account) -> tuple[str, ...]:
    from rich.markup import escape

    limits = {
        "requests/min": account.requests_per_minute,
        "at once": account.max_concurrent,
        "s queued": account.max_queued_seconds,
        "s a day": account.daily_seconds,
    }
    said = [f"{value:g} {unit}" for unit, value in limits.items() if value]
    if account.weight != 1:
        said.append(f"weight {account.weight:g}")
    return (
        account.id,
        escape(account.name),
        _state(account),
        " ".join(account.scopes),
        " ".join(account.checkpoints) or "all",
        ", ".join(said) or "none",
        _day(account.created_at),
    )


def _state(account: Account) -> str:
    if account.revoked_at is not None:
        return f"revoked {_day(account.revoked_at)}"
    if account.expires_at is None:
        return "good"
    expired = account.expires_at <= time.time()
    return f"{'expired' if expired else 'good until'} {_day(account.expires_at)}"


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,4})([mhdw])", text)
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"--expires {text}: a number and m, h, d or w, such as 30d")
    return int(match[1]) * SECONDS[match[2]]


def _name(text: str) -> str:
    """One line, which a list can show."""
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_NAME:
        raise typer.BadParameter(f"NAME: 1 to {LONGEST_NAME} characters that can be shown")
    return text


def _scopes(given: list[str]) -> tuple[str, ...]:
    for each in given:
        if each not in SCOPES:
            raise typer.BadParameter(f"--scope {each}: is none of {', '.join(SCOPES)}")
    return tuple(dict.fromkeys(given))


def _checkpoints(given: list[str], settings: Settings) -> tuple[str, ...]:
    """Raises UnknownCheckpoint where one is not in the catalog."""
    if not given:
        return ()
    from server.catalog import load_catalog

    cards = load_catalog(settings.catalog)
    return tuple(dict.fromkeys(cards[name].name for name in given))
