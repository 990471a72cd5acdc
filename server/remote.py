"""What draws over HTTP into files: at a server that runs, or at a private one."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from server.config import Settings
from server.errors import DarkroomError
from server.listener import url
from server.private import private_server
from server.spec import OutputFormat
from server.supervisor import get

FORMATS = {f".{form.value}": form.value for form in OutputFormat} | {".jpg": "jpeg"}
AHEAD = 3
"""Generations of a sweep that are submitted before the first of them is fetched, so that the worker
does not wait for us."""
RECONNECTS = 5
FIRST_PAUSE_SECONDS = 0.2


def draw(
    settings: Settings,
    body: dict[str, Any],
    files: Mapping[str, Path],
    output: Path,
    server: str | None,
) -> None:
    """Draw it and write the file or files. `files` are pictures to send, by field.

    Raises:
        DarkroomError: it cannot be drawn or written; says why.
    """
    if output.suffix.lower() not in FORMATS:
        raise DarkroomError(f"{output}: end its name with one of {', '.join(sorted(FORMATS))}")
    if not output.absolute().parent.is_dir():
        raise DarkroomError(f"{output}: there is no folder {output.absolute().parent}")
    body = body | {"output_format": FORMATS[output.suffix.lower()]}
    with _client(settings, body, server) as (client, console):
        record = _followed(client, _submitted(client, body, files, console), console)
        images = record["images"]
        for path, image in zip(_names(output, len(images)), images, strict=True):
            _save(client, image, path, console)


def draw_sweep(
    settings: Settings,
    body: dict[str, Any],
    prompts: Sequence[str],
    folder: Path,
    server: str | None,
) -> None:
    """Draw each prompt with each setting of the sweep: `001-….png` and `001-grid.png` for the
    first, and so on.

    Raises:
        DarkroomError: it cannot be drawn or written; says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DarkroomError(f"cannot write: {error}") from error
    with _client(settings, body, server) as (client, console):
        waiting: deque[dict[str, Any]] = deque()
        try:
            for number, prompt in enumerate(prompts, 1):
                while len(waiting) < AHEAD and (later := number - 1 + len(waiting)) < len(prompts):
                    sent = body | {"prompt": prompts[later]}
                    waiting.append(_submitted(client, sent, {}, console))
                console.print(f"[bold]{number}/{len(prompts)}[/] {escape(prompt)}")
                record = _followed(client, waiting[0], console)
                waiting.popleft()
                for name, image in _swept_names(record, number):
                    _save(client, image, folder / name, console)
        finally:
            for record in waiting:  # nobody would fetch them
                with contextlib.suppress(httpx.HTTPError):
                    client.post(record["urls"]["cancel"])


@contextlib.contextmanager
def _client(
    settings: Settings, body: dict[str, Any], server: str | None
) -> Iterator[tuple[httpx.Client, Console]]:
    """A connection to whoever draws; what goes wrong on it or on the disk, in words."""
    console = Console(stderr=True, highlight=False)
    with (
        _somebody(settings, body, server, console) as where,
        httpx.Client(base_url=where, timeout=httpx.Timeout(30.0)) as client,
    ):
        try:
            yield client, console
        except httpx.HTTPError as error:
            raise DarkroomError(
                f"no answer from {where}: {error}; what it accepted, it will draw"
            ) from error
        except OSError as error:
            raise DarkroomError(f"cannot read or write: {error}") from error


def _save(client: httpx.Client, image: dict[str, Any], path: Path, console: Console) -> None:
    path.write_bytes(_checked(client.get(image["url"])).content)
    size, seed = f"{image['width']}x{image['height']}", image["seed"]
    console.print(f"[bold green]{path}[/]  {size}, seed {seed}")


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
    settings: Settings, body: dict[str, Any], server: str | None, console: Console
) -> Iterator[str]:
    """The server that was named, else the one on this machine, else a private one."""
    here = url(settings.host, settings.port)
    if server is not None:
        yield server.rstrip("/")
    elif get(here, "/healthz") is not None:
        yield here
    else:
        needed = _checkpoints(body)
        said = " and ".join(f"[bold]{name}[/]" for name in needed)
        with (
            console.status(f"Starting a private server of {said} …") as status,
            private_server(settings, *needed) as private,
        ):
            status.stop()
            yield private


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
    record = dict(_checked(answer).json())
    _warn(console, record["warnings"])
    return record


def _warn(console: Console, warnings: Sequence[Mapping[str, Any]]) -> None:
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning['message'])}")


def _followed(client: httpx.Client, record: dict[str, Any], console: Console) -> dict[str, Any]:
    """Show its progress until it has succeeded; Ctrl-C cancels it."""
    bar = Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    try:
        with bar:
            task = bar.add_task(record["status"], total=None)
            for event, data in _events(client, record["urls"]["events"]):
                if event == "state":
                    bar.update(task, description=data["status"])
                elif event == "progress":
                    done, total = data["steps_done"], data["steps_total"]
                    bar.update(task, completed=done, total=total or None)
    except KeyboardInterrupt:
        client.post(record["urls"]["cancel"])
        console.print("canceled")
        raise SystemExit(130) from None
    ended = dict(_checked(client.get(record["urls"]["self"])).json())
    if ended["status"] != "succeeded":
        reason = ended["error"]["message"] if ended["error"] else ""
        raise DarkroomError(f"the generation ended as {ended['status']}. {reason}".rstrip())
    _warn(console, [each for each in ended["warnings"] if each not in record["warnings"]])
    return ended


def _events(client: httpx.Client, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events until `done`; a broken connection is taken up where it broke. Each event that comes
    gives it all its attempts back."""
    last, attempt = "0", 0
    while attempt <= RECONNECTS:
        try:
            with client.stream("GET", path, headers={"Last-Event-ID": last}) as response:
                if response.is_error:
                    response.read()
                _checked(response)
                for id, event, data in _parsed(response.iter_lines()):
                    yield event, data
                    last, attempt = id, 0
                    if event == "done":
                        return
        except httpx.TransportError:
            if attempt == RECONNECTS:
                raise
        time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
        attempt += 1
    raise DarkroomError("the server ends the stream of events before the generation is done")


def _parsed(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Server-sent events as (id, event, data). Comments keep the connection alive, no more."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                data = json.loads(fields["data"])
                yield fields.get("id", "0"), fields.get("event", "message"), data
            fields = {}


def _checked(response: httpx.Response) -> httpx.Response:
    """The response, or the reason it gives in its problem document."""
    if response.is_success:
        return response
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    raise DarkroomError(f"{response.status_code}: {detail}")


def _names(output: Path, count: int) -> list[Path]:
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{index + 1}") for index in range(count)]
