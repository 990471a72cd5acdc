"""Command-line options that are settings too, and how they become `Settings`."""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from server import log
from server.config import Settings

CLIENTS = {"DARKROOM_KEY", "DARKROOM_SERVER"}
"""What clients read."""
OF_SERVICES = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_")


def by_default(help: str, default: str) -> str:
    """The help of an option whose default is None, and what that comes to. Typer's own way puts it
    in brackets within brackets."""
    return f"{help} [dim]\\[default: {default}][/]"


def _option(name: str, help: str, default: str | None = None, **kwargs: Any) -> Any:
    """An option that is also a setting; None leaves it to the environment, file and default."""
    setting = name.removeprefix("--").replace("-", "_")
    if setting in Settings.model_fields:
        kwargs = {"envvar": f"DARKROOM_{setting.upper()}"} | kwargs
    if default is not None:
        help = by_default(help, default)
    return typer.Option(name, help=help, **kwargs)


CatalogFile = Annotated[
    Path | None,
    _option("--catalog", "Your own checkpoint cards (TOML), beside the shipped ones."),
]
RedisUrl = Annotated[
    str | None,
    _option(
        "--redis",
        "Redis 6.2 or newer, e.g. redis://127.0.0.1:6379/0, rediss:// with TLS, unix:///run/r.sock "
        "or redis+sentinel://HOST1,HOST2/MASTER. With a password better in DARKROOM_REDIS: what is "
        "typed here can be seen by others of this machine.",
        metavar="URL",
    ),
]
DataDir = Annotated[
    Path | None, _option("--data-dir", "Folder for images and the embedded Redis.", "data")
]
Host = Annotated[str | None, _option("--host", "Address to listen on.", "127.0.0.1")]
Gateways = Annotated[
    int | None,
    _option("--gateways", "Gateway processes on one socket; a core each is what they use.", "1"),
]
Port = Annotated[int | None, _option("--port", "Port to listen on; 0 takes a free one.", "8000")]
NoAuth = Annotated[
    bool | None,
    _option(
        "--insecure-no-auth",
        "Let other machines in, and anybody on them, although there are no API keys.",
        "off",
    ),
]
LogLevel = Annotated[str | None, _option("--log-level", "debug, info, warning or error.", "info")]
LogFormat = Annotated[str | None, _option("--log-format", "console or json.", "console")]
Device = Annotated[str | None, _option("--device", "auto, cpu, cuda or cuda:N.", "auto")]
Fd = Annotated[int | None, typer.Option("--fd", hidden=True, help="A socket that listens already.")]

Workers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CHECKPOINT[@DEVICE]",
        help=by_default(
            "Start a worker, e.g. sd-v1-5@cuda:0. Repeat it for more; a checkpoint that is named "
            "twice gets two workers. [dim]\\[env var: DARKROOM_WORKERS][/]",
            "demo",
        ),
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        help="File to write: .png, .webp or .jpg. Several images: out-1.png, out-2.png, …",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        envvar="DARKROOM_SERVER",
        metavar="URL",
        help="Who draws, e.g. http://10.0.0.5:8000; or name it in DARKROOM_SERVER. Without either: "
        "the server of this machine, at DARKROOM_PORT or 8000; where none answers, commands that "
        "draw start a private one for themselves.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="DARKROOM_KEY",
        metavar="KEY",
        help="API key, where the server wants one. Better in DARKROOM_KEY: what is typed here can "
        "be seen by others of this machine.",
        show_default=False,
        show_envvar=True,
    ),
]
Open = Annotated[bool, typer.Option("--open", help="Open the picture with the system's viewer.")]
Inline = Annotated[
    bool | None,
    typer.Option(
        "--inline/--no-inline",
        help=by_default(
            "Show the picture in the terminal: kitty, Ghostty, Konsole, iTerm2 and WezTerm can.",
            "where it can",
        ),
    ),
]


def settings_of(**given: Any) -> Settings:
    """Options over environment over darkroom.toml over defaults; logs as they say."""
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "_".join(str(part) for part in first["loc"])
        raise typer.BadParameter(f"DARKROOM_{name.upper()}: {first['msg']}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise typer.BadParameter(f"darkroom.toml: {error}") from error
    log.configure(settings.log_format, settings.log_level)
    if settings.metrics_socket is None:  # else whoever has started this one has told it
        for words in misspelled(os.environ):
            logging.getLogger("darkroom").warning("%s", words)
    return settings


def misspelled(environment: Mapping[str, str]) -> Iterator[str]:
    """What to say of variables that look like settings and are none. Kubernetes tells of a Service
    called darkroom by such names, too: those are left out."""
    known = {f"DARKROOM_{name.upper()}" for name in Settings.model_fields} | CLIENTS
    for name, value in sorted(environment.items()):
        of_service = OF_SERVICES.search(name) or value.startswith(("tcp://", "udp://", "sctp://"))
        if name.startswith("DARKROOM_") and name not in known and not of_service:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            yield f"{name} is no setting" + (f"; is it {near[0]}?" if near else "")
