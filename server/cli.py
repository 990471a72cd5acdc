"""The `darkroom` command. Imports what a command needs when that command runs.

Exit codes: 0 done, 1 an error, 2 wrong usage or settings, 3 a checkpoint that cannot be loaded.
"""

from __future__ import annotations

import logging
import socket
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from server import __version__, cardfile, drawing, keyring, planning, queueing, replaying
from server.catalog import load_catalog
from server.child import HOPELESS
from server.config import Settings
from server.errors import CheckpointError, DarkroomError
from server.options import (
    CatalogFile,
    DataDir,
    Device,
    Fd,
    Gateways,
    Host,
    LogFormat,
    LogLevel,
    NoAuth,
    Port,
    RedisUrl,
    Workers,
    settings_of,
)

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
app.add_typer(cardfile.checkpoints, name="checkpoints")
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
    gateways: Gateways = None,
    insecure_no_auth: NoAuth = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    fd: Fd = None,
) -> None:
    """Run everything: Redis, the gateway, and the workers; restart what dies.

    Without --redis, a Redis of our own keeps the queue in the data directory,
    so nothing that was accepted is lost between two runs.
    Ctrl-C lets running generations finish; a second one stops at once.

    [bold]Examples[/]

      darkroom serve
      darkroom serve --worker sd-v1-5@cuda:0 --worker sd-v1-5@cuda:1 --port 9000
      darkroom serve --redis redis://10.0.0.5:6379/0 --catalog my-cards.toml
    """
    from server.api.openai.names import aliases_of
    from server.cloud import expect_bucket
    from server.supervisor import Supervisor, refuse_open_house
    from server.terminal import Plain, Terminal
    from server.tracing import expect_extra

    settings = settings_of(
        workers=" ".join(worker) if worker else None,
        catalog=catalog,
        redis=redis,
        data_dir=data_dir,
        host=host,
        port=port,
        gateways=gateways,
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
    refuse_open_house(settings)
    expect_bucket(settings.storage)
    expect_extra(settings.otlp_endpoint)
    console = Plain() if settings.log_format == "json" else Terminal()
    listener = _listener(settings, fd)
    Supervisor(settings, listener, console, workers=settings.workers.split()).run()


@app.command()
def gateway(
    redis: RedisUrl = None,
    catalog: CatalogFile = None,
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    gateways: Gateways = None,
    insecure_no_auth: NoAuth = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    fd: Fd = None,
) -> None:
    """Run the HTTP part alone.

    It needs no GPU and no torch; several may share one Redis. With --gateways
    there are several here, on one socket; one that dies is started again.

    [bold]Examples[/]

      darkroom gateway --redis redis://10.0.0.5:6379/0 --port 8000
      DARKROOM_REDIS=redis://gateway:PASSWORD@10.0.0.5:6379/0 darkroom gateway
    """
    settings = settings_of(
        redis=redis,
        catalog=catalog,
        data_dir=data_dir,
        host=host,
        port=port,
        gateways=gateways,
        insecure_no_auth=insecure_no_auth,
        log_level=log_level,
        log_format=log_format,
    )
    from server.broker.accounts import locked_at
    from server.cloud import expect_bucket
    from server.listener import refuse_open_door
    from server.tracing import expect_extra

    _need_redis(settings)
    refuse_open_door(settings, locked=locked_at(settings.redis))
    expect_bucket(settings.storage)
    expect_extra(settings.otlp_endpoint)
    cards, listener = load_catalog(settings.catalog), _listener(settings, fd)
    if settings.gateways > 1:
        from server.supervisor import Supervisor
        from server.terminal import Plain

        Supervisor(settings, listener, Plain(), workers=()).run()
    else:
        from server.gateway import run_gateway

        run_gateway(settings, cards, listener)


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
    from server.broker.entrance import expect_worker
    from server.cloud import expect_bucket
    from server.tracing import expect_extra

    expect_worker(settings.redis, card.name)
    expect_bucket(settings.storage)
    expect_extra(settings.otlp_endpoint)
    logging.getLogger("darkroom.worker").info("importing torch and diffusers")
    from server.workers.main import run_worker

    run_worker(settings, card)


app.command()(drawing.generate)
app.command()(drawing.sweep)
app.command()(replaying.replay)
app.command()(queueing.queue)
app.command()(planning.plan)


def main() -> None:
    """Entry point: every expected error becomes one line and an exit code."""
    try:
        app(prog_name="darkroom")
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
