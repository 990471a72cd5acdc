"""Logs with the generation id on each line, for people or for machines. Knows no other room."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal, TextIO

ENCODE = json.JSONEncoder(default=str).encode
"""`json.dumps` would make an encoder for each line."""
CHATTY = ("torchao", "torch.utils._pytree", "diffusers.quantizers")
"""What they warn of when they are imported concerns their authors: torchao of kernels for other
devices, and diffusers, which imports it wherever it is installed."""
PROMPTS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; whatever was passed as `extra` becomes a field. Times are UTC, as
    those of the API."""

    def format(self, record: logging.LogRecord) -> str:
        """Newlines in messages stay inside the string, so a line is always one event."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return ENCODE(entry)


class ConsoleFormatter(logging.Formatter):
    """Time, level, logger, message, and where there are any, prompts and the ids of generation and
    account."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Control characters are escaped, so nobody's input can forge a line."""
        line = super().format(record)
        head, *rest = line.split("\n") if record.exc_info else [line]
        for name in PROMPTS:
            head += f" {name}: {said}" if (said := getattr(record, name, "")) else ""
        for id in (getattr(record, name, None) for name in ("generation", "account")):
            head = f"{head} [{id}]" if id else head
        return "\n".join(["".join(c if c.isprintable() else repr(c)[1:-1] for c in head), *rest])


def configure(form: Literal["console", "json"], level: str, stream: TextIO | None = None) -> None:
    """Replace the root logger's handlers; libraries speak at warning and above."""
    # Nobody prints them, and each line would pay for finding them out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("darkroom", "uvicorn.error"):
        logging.getLogger(name).setLevel(level.upper())
