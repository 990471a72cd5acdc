"""What a person at a terminal sees of `darkroom serve`, and what a log collector gets instead."""

from __future__ import annotations

import json
import logging

from rich.console import Console
from rich.text import Text

PROMPT = "a red circle on a blue background"
STYLES = ("cyan", "magenta", "yellow", "green", "blue")

log = logging.getLogger("darkroom.serve")


def curl_line(url: str) -> str:
    """A command that draws a picture when it is pasted into a shell."""
    return (
        f"curl -fsS {url}/v1/generations -H 'Prefer: wait=60' -H 'Accept: image/png' "
        "-H 'Content-Type: application/json' "
        f"-d '{json.dumps({'prompt': PROMPT})}' -o picture.png"
    )


class Terminal:
    """Lines with the name of who wrote them, and where to go once everything answers."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._styles: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Something the supervisor does."""
        self._print("serve", text, "bold")

    def line(self, name: str, text: str) -> None:
        """A line that a child wrote."""
        style = self._styles.setdefault(name, STYLES[len(self._styles) % len(STYLES)])
        self._print(name, text, style)

    def ready(self, url: str) -> None:
        """The way in, and one command to try."""
        self._show(
            Text.assemble("\nDarkroom is ready at ", (url, "bold green"), "\n\n"),
            Text.assemble("  Playground ", (f"{url}/", "underline"), "\n"),
            Text.assemble("  API docs   ", (f"{url}/docs", "underline"), "\n"),
            Text.assemble("  Try it     ", (curl_line(url), "bold"), "\n"),
            Text("  Stop       Ctrl-C\n"),
        )

    def _print(self, name: str, text: str, style: str) -> None:
        self._show(Text.assemble((f"{name:<8} ", style), ("│ ", "dim"), text))

    def _show(self, *texts: Text) -> None:
        """Never wrapped: a command is pasted whole, and terminals wrap long lines themselves."""
        self._console.print(Text().join(texts), soft_wrap=True)


class Plain:
    """What a log collector gets: the supervisor speaks through the log, children by themselves."""

    line = None

    def say(self, text: str) -> None:
        """Something the supervisor does."""
        log.info(" ".join(text.split()))

    def ready(self, url: str) -> None:
        """Everything answers at `url`."""
        log.info("ready at %s", url, extra={"url": url})
