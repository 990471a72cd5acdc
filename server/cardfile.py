"""The commands `darkroom checkpoints`: what the catalog has, and whether one of them draws."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from server.catalog import Catalog, load_catalog
from server.options import CatalogFile, Device, settings_of

UNBOUNDED = 10_000
"""Characters of a line that a program reads: each card is on one."""

checkpoints = typer.Typer(no_args_is_help=True, help="What can be drawn with.")


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
    steps: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Denoising steps.")] = 4,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="PNG file to keep the picture in.")
    ] = None,
) -> None:
    """Load one as a worker would, draw one picture, and say what it took.

    The picture has the checkpoint's native size.

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


def _catalog(own: Path | None) -> Catalog:
    return load_catalog(settings_of(catalog=own).catalog)


def _flat(table: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            yield f"{prefix}{name}", text
