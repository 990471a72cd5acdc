"""One generation at a server, followed to its end with a progress bar. Knows HTTP and no files."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from math import ceil
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from server.errors import DarkroomError

RECONNECTS = 5
FIRST_PAUSE_SECONDS = 0.2


def followed(client: httpx.Client, record: dict[str, Any], console: Console) -> dict[str, Any]:
    """Show its progress until it has succeeded, and return its last record; Ctrl-C cancels it.

    Raises:
        DarkroomError: it ended otherwise; says how.
    """
    try:
        with _bar(console) as bar:
            task = bar.add_task(_standing(record), total=None)
            for event, data in events(client, record["urls"]["events"]):
                if event == "state":
                    bar.update(task, description=data["status"])
                elif event == "progress":
                    done, total = data["steps_done"], data["steps_total"]
                    bar.update(task, completed=done, total=total or None)
    except KeyboardInterrupt:
        client.post(record["urls"]["cancel"])
        console.print("canceled")
        raise SystemExit(130) from None
    ended = dict(checked(client.get(record["urls"]["self"])).json())
    if ended["status"] != "succeeded":
        reason = ended["error"]["message"] if ended["error"] else ""
        raise DarkroomError(f"the generation ended as {ended['status']}. {reason}".rstrip())
    warn(console, [each for each in ended["warnings"] if each not in record["warnings"]])
    return ended


def warn(console: Console, warnings: Sequence[Mapping[str, Any]]) -> None:
    """Say each of a record's warnings."""
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning['message'])}")


class TimeLeft(ProgressColumn):
    """The time that is left, once there is a pace to tell it by."""

    def render(self, task: Task) -> Text:
        """As `0:00:12 left`."""
        seconds = None if task.total is None else task.time_remaining
        said = "" if seconds is None else f"{timedelta(seconds=ceil(seconds))} left"
        return Text(said, style="progress.remaining")


def _bar(console: Console) -> Progress:
    """Steps of all its pictures together, the time they took, and the time that is left."""
    return Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TimeLeft(),
        console=console,
        transient=True,
    )


def _standing(record: Mapping[str, Any]) -> str:
    """Its state, and while it waits, how many are before it."""
    ahead = record["queue_position"]
    return f"queued, {ahead} ahead" if ahead else str(record["status"])


def events(client: httpx.Client, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events until `done`; a broken connection is taken up where it broke. Each event that comes
    gives it all its attempts back."""
    last, attempt = "0", 0
    while attempt <= RECONNECTS:
        try:
            with client.stream("GET", path, headers={"Last-Event-ID": last}) as response:
                if response.is_error:
                    response.read()
                checked(response)
                for id, event, data in parsed(response.iter_lines()):
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


def parsed(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
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


def bearer(key: str | None) -> dict[str, str]:
    """The headers that an API key is sent in, if there is one.

    Raises:
        DarkroomError: it cannot be one; does not repeat it.
    """
    if not key:
        return {}
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise DarkroomError("--key or DARKROOM_KEY: this is no API key; they look like dr_…")
    return {"Authorization": f"Bearer {key}"}


def checked(response: httpx.Response) -> httpx.Response:
    """The response.

    Raises:
        DarkroomError: it is a refusal; says what its problem document says.
    """
    if response.is_success:
        return response
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    if response.status_code == httpx.codes.UNAUTHORIZED:
        detail = f"{detail}; give one with DARKROOM_KEY or --key (`darkroom keys create` makes one)"
    raise DarkroomError(f"{response.status_code}: {detail}")
