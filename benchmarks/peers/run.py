"""`make bench ARGS="peers"`: everybody who can be had here, side by side."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers import plots, subjects
from benchmarks.peers.race import Race, race
from benchmarks.peers.report import rows, table
from benchmarks.peers.subjects import Subject


def demo(rounds: int) -> Race:
    """With the checkpoint that ships."""
    return _compared(subjects.demo(), rounds)


def real(rounds: int) -> Race:
    """With one of real size, made for this."""
    with subjects.real() as subject:
        return _compared(subject, rounds)


PARTS: dict[str, Callable[[int], Race]] = {"peers": demo, "peers-sd-v1": real}


def _compared(subject: Subject, rounds: int) -> Race:
    """Says what it does while it does it, and how it ended."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all servers are ended
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    found = race(subject.checkpoint, subject.course, subject.peers, rounds, say)
    print(table(found), flush=True)
    return found


def document(found: Race) -> dict[str, Any]:
    """For a JSON file: who made what of which load, and who was missing and why."""
    return {
        "checkpoint": found.checkpoint,
        "capacity": found.capacity,
        "missing": found.missing,
        "rows": [asdict(row) for row in rows(found)],
        "entries": [asdict(entry) for entry in found.entries],
    }


def draw_plots(found: Race, folder: Path, machine: str) -> None:
    """Into this folder."""
    for path in plots.save(folder, found, machine):
        print(f"wrote {path}")
