"""The command `darkroom queue`: who waits for which checkpoint, and how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.errors import DarkroomError
from server.options import Key, Server, settings_of

if TYPE_CHECKING:
    from rich.table import Table

WATCH_SECONDS = 1.0
NOTHING = "-"


def queue(
    server: Server = None,
    key: Key = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again every second, until Ctrl-C.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Also checkpoints that nobody serves.")
    ] = False,
) -> None:
    """Show what waits and what is drawn, per checkpoint, and how long one more would take.

    PACE is the time that one generation costs while the workers are busy; WAIT is the predicted
    time until one that is submitted now is finished. Both are measured, so a server that has drawn
    nothing yet shows neither.

    [bold]Examples[/]

      darkroom queue
      darkroom queue --watch --server http://10.0.0.5:8000
    """
    import httpx
    from rich.console import Console
    from rich.live import Live

    from server.following import bearer
    from server.listener import url
    from server.remote import running_server

    settings = settings_of()
    where = running_server(settings, server)
    if where is None:
        here = url(settings.host, settings.port)
        raise DarkroomError(f"no server answers at {here}; name one with --server")
    console = Console()
    try:
        with httpx.Client(base_url=where, timeout=10.0, headers=bearer(key)) as client:
            if not watch:
                console.print(_table(_asked(client), every))
                return
            with Live(_table(_asked(client), every), console=console, auto_refresh=False) as live:
                while True:
                    time.sleep(WATCH_SECONDS)
                    live.update(_table(_asked(client), every), refresh=True)
    except httpx.HTTPError as error:
        raise DarkroomError(f"no answer from {where}: {error}") from error
    except KeyboardInterrupt:
        return


def _asked(client: Any) -> list[dict[str, Any]]:
    from server.following import checked

    return list(checked(client.get("/v1/queue")).json()["checkpoints"])


def _table(queues: list[dict[str, Any]], every: bool) -> Table:
    """A row for each checkpoint that has workers or work."""
    from rich.table import Column, Table

    numbers = ("waiting", "running", "workers", "pace", "wait")
    columns = (Column(name, justify="right") for name in numbers)
    table = Table(Column("checkpoint", no_wrap=True), *columns, box=None)
    shown = [each for each in queues if every or _alive(each)]
    for each in shown:
        table.add_row(*_row(each))
    if not shown:
        table.add_row("(nobody works here)")
    return table


def _alive(queue: dict[str, Any]) -> bool:
    return any(queue[name] for name in ("queued", "running", "ready_workers", "draining_workers"))


def _row(queue: dict[str, Any]) -> list[str]:
    wait, ahead = queue["wait_seconds"], queue["queued"] + queue["running"] + 1
    leaving = queue["draining_workers"]
    workers = f"{queue['ready_workers']}" + (f" (+{leaving} leaving)" if leaving else "")
    return [
        queue["checkpoint"],
        str(queue["queued"]),
        str(queue["running"]),
        workers,
        NOTHING if wait is None else duration(wait / ahead),
        NOTHING if wait is None else duration(wait),
    ]


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.42 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
