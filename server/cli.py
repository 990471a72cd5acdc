"""The `darkroom` command. Imports what a command needs when that command runs.

Exit codes: 0 done, 1 an error, 2 wrong usage or settings, 3 a checkpoint that cannot be loaded.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from server import __version__, drawing, keyring, queueing, replaying
from server.catalog import Catalog, load_catalog
from server.child import HOPELESS
from server.config import Settings
from server.errors import CheckpointError, DarkroomError
from server.options import (
    CatalogFile,
    DataDir,
    Device,
    Fd,
    Host,
    LogFormat,
    LogLevel,
    NoAuth,
    Port,
    RedisUrl,
    Workers,
    settings_of,
)

UNBOUNDED = 10_000
"""Characters of a line that a program reads: each card is on one."""

app = typer.Typer(
    name="darkroom",
    help="A self-hosted REST inference server for Stable Diffusion.",
    epilog="Every option can also be set in the environment or in ./darkroom.toml; "
    "docs/configuration.md lists all settings.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
checkpoints = typer.Typer(no_args_is_help=True, help="What can be drawn with.")
app.add_typer(checkpoints, name="checkpoints")
app.add_typer(keyring.keys, name="keys")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"darkroom {__version__}")
        raise typer.Exit


@app.command()
def serve(
    worker: Workers = None,
    catalog: CatalogFile = None,
    redis: RedisUrl = None,
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    insecure_no_auth: NoAuth = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    fd: Fd = None,
) -> None:
    """Run everything: Redis, one gateway, and the workers; restart what dies.

    Without --redis, a Redis of our own keeps the queue in the data directory,
    so nothing that was accepted is lost between two runs.
    Ctrl-C lets running generations finish; a second one stops at once.

    [bold]Examples[/]

      darkroom serve
      darkroom serve --worker sd-v1-5@cuda:0 --worker sd-v1-5@cuda:1 --port 9000
      darkroom serve --redis redis://10.0.0.5:6379/0 --catalog my-cards.toml
    """
    from server.api.openai.names import aliases_of
    from server.supervisor import Supervisor
    from server.terminal import JsonLines, Terminal

    settings = settings_of(
        workers=" ".join(worker) if worker else None,
        catalog=catalog,
        redis=redis,
        data_dir=data_dir,
        host=host,
        port=port,
        insecure_no_auth=insecure_no_auth,
        log_level=log_level,
        log_format=log_format,
    )
    cards = load_catalog(settings.catalog)
    served = [worker.partition("@")[0] for worker in settings.workers.split()]
    if not served:
        raise typer.BadParameter("name at least one checkpoint: --worker or DARKROOM_WORKERS")
    for name in served:
        cards[name]  # an unknown one is told before anything starts
    aliases_of(settings.aliases, cards)
    default = settings.default_checkpoint or served[0]
    settings = settings.model_copy(update={"default_checkpoint": cards[default].name})
    console = JsonLines() if settings.log_format == "json" else Terminal()
    Supervisor(settings, _listener(settings, fd), console).run()


@app.command()
def gateway(
    redis: RedisUrl = None,
    catalog: CatalogFile = None,
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    insecure_no_auth: NoAuth = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    fd: Fd = None,
) -> None:
    """Run the HTTP part alone. Needs no GPU and no torch; several may share one Redis.

    [bold]Example[/]

      darkroom gateway --redis redis://10.0.0.5:6379/0 --port 8000
    """
    settings = settings_of(
        redis=redis,
        catalog=catalog,
        data_dir=data_dir,
        host=host,
        port=port,
        insecure_no_auth=insecure_no_auth,
        log_level=log_level,
        log_format=log_format,
    )
    from server.broker.accounts import locked_at
    from server.gateway import run_gateway
    from server.listener import refuse_open_door

    _need_redis(settings)
    refuse_open_door(settings, locked=locked_at(settings.redis))
    run_gateway(settings, load_catalog(settings.catalog), _listener(settings, fd))


@app.command("worker")
def run_one_worker(
    checkpoint: Annotated[
        str, typer.Option(help="What to draw with; see `darkroom checkpoints list`.")
    ],
    device: Device = None,
    redis: RedisUrl = None,
    catalog: CatalogFile = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Run one worker: it keeps one checkpoint on one device and draws what its queue holds.

    SIGTERM lets running generations finish within DARKROOM_DRAIN_SECONDS.

    [bold]Example[/]

      darkroom worker --checkpoint sd-v1-5 --device cuda:0 --redis redis://10.0.0.5:6379/0
    """
    settings = settings_of(
        device=device,
        redis=redis,
        catalog=catalog,
        data_dir=data_dir,
        log_level=log_level,
        log_format=log_format,
    )
    _need_redis(settings)
    card = load_catalog(settings.catalog)[checkpoint]
    logging.getLogger("darkroom.worker").info("importing torch and diffusers")
    from server.workers.main import run_worker

    run_worker(settings, card)


app.command()(drawing.generate)
app.command()(drawing.sweep)
app.command()(replaying.replay)
app.command()(queueing.queue)


@checkpoints.command("list")
def list_checkpoints(catalog: CatalogFile = None) -> None:
    """One line per checkpoint card."""
    cards = _catalog(catalog)
    name = Column("name", no_wrap=True, min_width=max(map(len, cards)))
    tasks, source = Column("tasks", overflow="fold"), Column("source", overflow="fold")
    table = Table(name, "family", "size", "predicts", tasks, source, box=None)
    for card in cards.values():
        size, predicts = str(card.native_size), card.prediction_type
        table.add_row(card.name, card.family, size, predicts, " ".join(card.tasks), card.source)
    console = Console()
    if not console.is_terminal:
        console.width = UNBOUNDED
    console.print(table)


@checkpoints.command("show")
def show_checkpoint(
    name: Annotated[str, typer.Argument(help="As `darkroom checkpoints list` says it.")],
    catalog: CatalogFile = None,
) -> None:
    """Everything a card says: what it draws by default, and what it refuses."""
    card = _catalog(catalog)[name].model_dump(mode="json")
    table = Table(box=None, show_header=False)
    for field, value in _flat(card):
        table.add_row(f"[bold]{field}[/]", value)
    Console().print(table)


@checkpoints.command("verify")
def verify_checkpoint(
    name: Annotated[str, typer.Argument(help="As `darkroom checkpoints list` says it.")],
    device: Device = None,
    catalog: CatalogFile = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 4,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="PNG file to keep the picture in.")
    ] = None,
) -> None:
    """Load one as a worker would, draw one picture at its native size, and say what it took.

    [bold]Examples[/]

      darkroom checkpoints verify demo
      darkroom checkpoints verify sdxl-base --device cuda:0 --catalog my-cards.toml
    """
    settings = settings_of(device=device, catalog=catalog)
    card = load_catalog(settings.catalog)[name]
    from server.workers.png import encode_png
    from server.workers.verify import verify

    found = verify(settings, card, steps)
    if output is not None:
        output.write_bytes(encode_png(found.picture, {}))
    table = Table(box=None, show_header=False)
    for fact, value in found.facts():
        table.add_row(f"[bold]{fact}[/]", value)
    Console().print(table)


def main() -> None:
    """Entry point: every expected error becomes one line and an exit code."""
    try:
        app()
    except DarkroomError as error:
        if logging.getLogger("darkroom").isEnabledFor(logging.DEBUG):
            raise
        said = f"[bold red]error:[/] {escape(error.message)}"
        Console(stderr=True, highlight=False).print(said, soft_wrap=True)
        raise SystemExit(HOPELESS if isinstance(error, CheckpointError) else 1) from None


def _need_redis(settings: Settings) -> None:
    if not settings.redis:
        raise typer.BadParameter(
            "needs a Redis: --redis URL or DARKROOM_REDIS (`darkroom serve` brings its own)"
        )


def _listener(settings: Settings, fd: int | None) -> socket.socket:
    from server.listener import listen

    if fd is None:
        return listen(settings.host, settings.port)
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise typer.BadParameter(f"--fd {fd}: {error.strerror}") from error


def _catalog(own: Path | None) -> Catalog:
    return load_catalog(settings_of(catalog=own).catalog)


def _flat(table: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            yield f"{prefix}{name}", text
