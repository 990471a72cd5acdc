"""The commands `darkroom keys`: making, listing and revoking API keys. They write to Redis, where
every gateway looks at each request; no server needs to run. The Redis user of gateways and workers
may not write there: an operator has one of their own."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.errors import DarkroomError
from server.options import CatalogFile, DataDir, RedisUrl, by_default, settings_of

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


def _between(least: float, most: float) -> Callable[[float], float]:
    """What click's own ranges do, without their signs in the help."""

    def check(value: float) -> float:
        if not least <= value <= most:
            raise typer.BadParameter(f"must be {least} to {most}")
        return value

    return check


def _limit(unit: str, help: str) -> Any:
    """An option that bounds something; 0 is no limit."""
    check = _between(0, MOST)
    help = by_default(help, "no limit")
    return typer.Option(metavar=unit, help=help, callback=check, show_default=False)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, or what it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help=by_default(
                "read, generate (and read) or admin (and all else). Repeat it for more.", "generate"
            ),
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECKPOINT",
            help=by_default("May draw with this one; repeat it for more.", "all"),
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=by_default("30d, 12h, 90m or 4w from now.", "never")),
    ] = None,
    weight: Annotated[
        float,
        typer.Option(
            metavar="NUMBER",
            help="Share of turns, beside those of other keys: 0.01 to 100.",
            callback=_between(0.01, 100),
        ),
    ] = 1.0,
    rate: Annotated[int, _limit("COUNT", "Requests a minute at most.")] = 0,
    concurrent: Annotated[int, _limit("COUNT", "Generations queued or running at once.")] = 0,
    queued_seconds: Annotated[float, _limit("SECONDS", "Predicted work that waits.")] = 0.0,
    daily_seconds: Annotated[float, _limit("SECONDS", "Predicted work of a device a day.")] = 0.0,
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
    if not quiet:
        _tell(account, locked)


def _tell(account: Account, locked: bool) -> None:
    """What else is to be known of a key that was just made; to whoever is there."""
    if sys.stdout.isatty():
        typer.echo(f"\n{account.name}, {account.id}: {', '.join(account.scopes)}", err=True)
        typer.echo("Keep it now: it is not shown again.", err=True)
    if locked:
        typer.echo("It is the first one: from now on every door wants a key.", err=True)


@keys.command("list")
def list_keys(
    json: Annotated[
        bool, typer.Option("--json", help="As GET /v1/usage/accounts says it, for programs.")
    ] = False,
    redis: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Every key that was ever made, oldest first: what it may do, whether it still may, what it has
    in hand and has used today, and when it was last used.

    TODAY is predicted seconds of work that was begun today, by UTC. LAST USED is up to half a
    minute behind.
    """
    from rich.console import Console

    from server.broker.usage import read_tallies
    from server.keytable import table_of

    with _kept(settings_of(redis=redis, data_dir=data_dir)) as client:
        found = read_tallies(client)
    if json:
        from server.api.usage import usage_list

        typer.echo(usage_list(found).model_dump_json(indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 10_000
    nobody = "There are no keys: whoever reaches this Darkroom may use it."
    console.print(table_of(found) if found else nobody)


@keys.command("revoke")
def revoke_key(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `darkroom keys list` says it.")],
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel what it has queued or running, too.")
    ] = False,
    redis: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Let a key open nothing any more, from its next request on. What it made is kept, and what it
    has queued is drawn, unless you say --cancel."""
    from server.broker import accounts
    from server.broker.control import cancel_all
    from server.keytable import day

    settings = settings_of(redis=redis, data_dir=data_dir)
    with _kept(settings) as client:
        account, now = accounts.revoke(client, id.removeprefix("dr_").partition("_")[0])
        said = "revoked" if now else f"already revoked since {day(account.revoked_at)}"
        typer.echo(f"{account.name}, {account.id}: {said}")
        if cancel:
            ended, asked = cancel_all(client, account.id, retention=settings.retention_seconds)
            typer.echo(f"canceled {ended} that waited; asked {asked} that run to stop")


@contextlib.contextmanager
def _kept(settings: Settings) -> Iterator[redis.Redis]:
    """Where they are kept: the Redis that is named, or that of the data directory, which need not
    run."""
    import redis

    from server.broker.entrance import client_of, refusal
    from server.embedded import reached

    with contextlib.ExitStack() as stack:
        url = settings.redis or stack.enter_context(reached(settings.data_dir))
        client = stack.enter_context(contextlib.closing(client_of(url, timeout=10.0)))
        try:
            yield client
        except redis.RedisError as error:
            said = refusal(error, url) or f"Redis does not answer, or refuses: {error}"
            raise DarkroomError(said) from error


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
