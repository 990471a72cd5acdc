"""The command `darkroom plan`: how many workers of each checkpoint hold a goal, simulated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.errors import DarkroomError
from server.options import CatalogFile, Key, settings_of

if TYPE_CHECKING:
    from server.config import Settings
    from server.fleet.figures import Figures
    from server.fleet.plan import Crew, Measured, Plan
    from server.fleet.search import Found


def plan(
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="What comes, and the goal (TOML).")],
    server: Annotated[
        str | None,
        typer.Option(
            envvar="DARKROOM_SERVER",
            metavar="URL",
            help="Whose workers are as fast as those of the plan, where it gives no curve; else "
            "the server of this machine, at DARKROOM_PORT or 8000.",
        ),
    ] = None,
    key: Key = None,
    json: Annotated[bool, typer.Option("--json", help="All figures, for programs.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw them too: .png, .svg or .pdf; needs matplotlib."),
    ] = None,
    catalog: CatalogFile = None,
) -> None:
    """Say how many workers of each checkpoint hold an arrival rate within a latency goal.

    The fleet is simulated, event by event: nothing is drawn, and no server needs to run where the
    plan gives the curves of its workers. docs/fleet.md has a plan to start from.

    [bold]Examples[/]

      darkroom plan plan.toml
      darkroom plan plan.toml --server http://10.0.0.5:8000 --plot plan.png
    """
    from rich.console import Console

    from server.catalog import load_catalog
    from server.fleet import plot as picture
    from server.fleet import report
    from server.fleet.plan import crews, read_plan

    settings = settings_of(catalog=catalog)
    said = read_plan(file)
    cards = load_catalog(settings.catalog)
    measured = _measured(settings, server, key) if said.unmeasured else {}
    held = settings.capacity
    found = [_found(said, crew, plot is not None) for crew in crews(said, cards, measured, held)]
    if plot is not None:
        picture.save(plot, said.goal, found)
    if json:
        typer.echo(report.as_json(said.goal, found))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 10_000
    report.show(console, said.goal, found)


def _found(plan: Plan, crew: Crew, beyond: bool) -> Found:
    """Tells a terminal which number is being tried."""
    from rich.console import Console

    from server.fleet.search import find

    with Console(stderr=True).status(f"{crew.checkpoint}: simulating") as status:

        def tell(tried: Figures) -> None:
            said = f"{tried.workers:,} workers, p99 {tried.total.p99:.2f} s"
            status.update(f"{crew.checkpoint}: simulating; {said}")

        return find(plan, crew, beyond=beyond, tell=tell)


def _measured(settings: Settings, server: str | None, key: str | None) -> dict[str, Measured]:
    """What the workers of a server that runs say of themselves."""
    import httpx

    from server.following import bearer, checked
    from server.remote import running_server

    where = running_server(settings, server)
    if where is None:
        return {}
    try:
        with httpx.Client(base_url=where, timeout=10.0, headers=bearer(key)) as client:
            queues = checked(client.get("/v1/queue")).json()["checkpoints"]
    except httpx.HTTPError as error:
        raise DarkroomError(f"no answer from {where}: {error}") from error
    found = {queue["checkpoint"]: _slowest(queue["workers"]) for queue in queues}
    return {name: said for name, said in found.items() if said is not None}


def _slowest(workers: Sequence[dict[str, Any]]) -> Measured | None:
    """A plan for the slowest holds for the others too."""
    from server.fleet.plan import Measured
    from server.forecast import Speed

    known = [
        Measured(Speed.model_validate(worker["speed"]), worker["capacity"])
        for worker in workers
        if worker.get("speed")
    ]
    return max(known, key=lambda each: each.speed.row_seconds, default=None)
