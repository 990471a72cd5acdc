"""What draws over HTTP into files: at a server that runs, or at a private one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from server.config import Settings
from server.errors import DarkroomError
from server.following import bearer, checked, followed, warn
from server.listener import url
from server.private import private_server
from server.spec import OutputFormat
from server.supervisor import get

FORMATS = {f".{form.value}": form.value for form in OutputFormat} | {".jpg": "jpeg"}
AHEAD = 3
"""Generations of a sweep that are submitted before the first of them is fetched, so that the worker
does not wait for us."""

INDEX = "index.tsv"
"""Which prompt the number of a sweep's file stands for."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What becomes of a picture once it is written."""

    open: bool = False
    """With the system's viewer."""
    inline: bool | None = None
    """In the terminal; None where it can."""


def draw(
    settings: Settings,
    body: dict[str, Any],
    files: Mapping[str, Path],
    output: Path,
    server: str | None,
    shown: Shown,
    key: str | None = None,
) -> None:
    """Draw it and write the file or files. `files` are pictures to send, by field.

    Raises:
        DarkroomError: it cannot be drawn or written; says why.
    """
    expect_writable(output)
    body = body | {"output_format": FORMATS[output.suffix.lower()]}
    with connected(settings, _checkpoints(body), server, key) as (client, console):
        record = followed(client, _submitted(client, body, files, console), console)
        images = record["images"]
        for path, image in zip(_names(output, len(images)), images, strict=True):
            save(client, image, path, console, shown)


def expect_writable(output: Path) -> None:
    """Raises DarkroomError where no picture can be written under this name."""
    if output.suffix.lower() not in FORMATS:
        raise DarkroomError(f"{output}: end its name with one of {', '.join(sorted(FORMATS))}")
    if not output.absolute().parent.is_dir():
        raise DarkroomError(f"{output}: there is no folder {output.absolute().parent}")


def draw_sweep(
    settings: Settings,
    body: dict[str, Any],
    prompts: Sequence[str],
    folder: Path,
    server: str | None,
    key: str | None = None,
) -> None:
    """Draw each prompt with each setting of the sweep: `001-….png` and `001-grid.png` for the
    first, and so on; `index.tsv` says which prompt each number stands for.

    Raises:
        DarkroomError: it cannot be drawn or written; says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).write_text(_index(prompts), "utf-8")
    except OSError as error:
        raise DarkroomError(f"cannot write: {error}") from error
    with connected(settings, _checkpoints(body), server, key) as (client, console):
        waiting: deque[dict[str, Any]] = deque()
        try:
            for number, prompt in enumerate(prompts, 1):
                while len(waiting) < AHEAD and (later := number - 1 + len(waiting)) < len(prompts):
                    sent = body | {"prompt": prompts[later]}
                    waiting.append(_submitted(client, sent, {}, console))
                console.print(f"[bold]{number:03d}[/] of {len(prompts)}  {escape(prompt)}")
                record = followed(client, waiting[0], console)
                waiting.popleft()
                for name, image in _swept_names(record, number):
                    save(client, image, folder / name, console)
        finally:
            for record in waiting:  # nobody would fetch them
                with contextlib.suppress(httpx.HTTPError):
                    client.post(record["urls"]["cancel"])


@contextlib.contextmanager
def connected(
    settings: Settings, checkpoints: Sequence[str], server: str | None, key: str | None = None
) -> Iterator[tuple[httpx.Client, Console]]:
    """A connection to whoever draws with these; what goes wrong on it or on the disk, in words."""
    console = Console(stderr=True, highlight=False)
    with (
        _somebody(settings, checkpoints, server, console) as where,
        httpx.Client(base_url=where, timeout=30.0, headers=bearer(key)) as client,
    ):
        try:
            yield client, console
        except httpx.HTTPError as error:
            raise DarkroomError(
                f"no answer from {where}: {error}; what it accepted, it will draw"
            ) from error
        except OSError as error:
            raise DarkroomError(f"cannot read or write: {error}") from error


def save(
    client: httpx.Client,
    image: dict[str, Any],
    path: Path,
    console: Console,
    shown: Shown | None = None,
) -> None:
    """Fetch a picture of a record into a file, and show it."""
    # To an object store, perhaps; httpx takes the key along to no other host.
    content = checked(client.get(image["url"], follow_redirects=True)).content
    path.write_bytes(content)
    size, seed = f"{image['width']}x{image['height']}", image["seed"]
    console.print(f"[bold green]{escape(str(path))}[/]  {size}, seed {seed}", soft_wrap=True)
    if shown is None:
        return
    _show_inline(content, shown.inline, console)
    if shown.open and typer.launch(str(path)) != 0:
        console.print("[yellow]warning:[/] there is no viewer to open it with")


def _show_inline(picture: bytes, wanted: bool | None, console: Console) -> None:
    """On a terminal that is known to be able to; never into a pipe or a file."""
    if wanted is False:
        return
    from server.inline import escape_sequence, protocol

    how = protocol(os.environ) if sys.stdout.isatty() else None
    if how is not None:
        sys.stdout.write(escape_sequence(picture, how))
        sys.stdout.flush()
    elif wanted:
        console.print("[yellow]warning:[/] --inline: this is no terminal known to show pictures")


def _index(prompts: Sequence[str]) -> str:
    lines = (f"{number:03d}\t{prompt}\n" for number, prompt in enumerate(prompts, 1))
    return "".join(("number\tprompt\n", *lines))


def _swept_names(record: dict[str, Any], number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """A file name for each picture of a sweep: which prompt, and with which values."""
    suffix = record["spec"]["output_format"]
    for image in record["images"]:
        values = "-".join(f"{name}-{value}" for name, value in image["varied"].items())
        yield f"{number:03d}-{values}.{suffix}", image
    if record["grid"] is not None:
        yield f"{number:03d}-grid.{suffix}", record["grid"]


@contextlib.contextmanager
def _somebody(
    settings: Settings, checkpoints: Sequence[str], server: str | None, console: Console
) -> Iterator[str]:
    """The server that was named, else the one on this machine, else a private one."""
    if (where := running_server(settings, server)) is not None:
        yield where
        return
    said = " and ".join(f"[bold]{escape(name)}[/]" for name in checkpoints)
    here = url(settings.host, settings.port)
    console.print(
        f"No server answers at {here}, so a private one of {said} is started for this command; "
        "--server or DARKROOM_SERVER names another.",
        soft_wrap=True,
    )
    with (
        console.status(f"Starting a private server of {said} …") as status,
        private_server(settings, *checkpoints) as private,
    ):
        status.stop()
        yield private


def running_server(settings: Settings, server: str | None) -> str | None:
    """The one that was named, else the one on this machine if there is one."""
    if server is not None:
        return server.rstrip("/")
    here = url(settings.host, settings.port)
    return here if get(here, "/healthz") is not None else None


def _checkpoints(body: dict[str, Any]) -> list[str]:
    """Who must be there to draw it, the first being the default."""
    seconds = (body[part]["checkpoint"] for part in ("refiner", "upscaler") if part in body)
    return list(dict.fromkeys([body.get("checkpoint", "demo"), *seconds]))


def _submitted(
    client: httpx.Client, body: dict[str, Any], files: Mapping[str, Path], console: Console
) -> dict[str, Any]:
    """The record of what was accepted, with its warnings said."""
    if files:
        parts: dict[str, Any] = {"request": (None, json.dumps(body), "application/json")}
        parts |= {field: (path.name, path.read_bytes()) for field, path in files.items()}
        answer = client.post("/v1/generations", files=parts)
    else:
        answer = client.post("/v1/generations", json=body)
    record = dict(checked(answer).json())
    warn(console, record["warnings"])
    return record


def _names(output: Path, count: int) -> list[Path]:
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{index + 1}") for index in range(count)]
