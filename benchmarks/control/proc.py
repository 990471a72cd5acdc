"""What processes have used of the CPU, as Linux keeps count of it."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
IDLE = (3, 4)
"""Of the numbers that /proc/stat has for all cores: idle, and waiting for a disk."""


def cpu_seconds(pid: int | str = "self") -> float:
    """Of a process, all its threads, those that have ended too."""
    return _used((PROC / str(pid) / "stat").read_text())


def threads_seconds(name: str) -> float:
    """Of the threads of this process whose name begins like this."""
    found = 0.0
    for task in (PROC / "self" / "task").iterdir():
        try:
            stat = (task / "stat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if stat.partition("(")[2].startswith(name):
            found += _used(stat)
    return found


def machine_seconds() -> float:
    """Of all processes of the machine."""
    first = (PROC / "stat").read_text().splitlines()[0]
    numbers = [int(each) for each in first.split()[1:9]]
    return sum(each for at, each in enumerate(numbers) if at not in IDLE) / TICKS


def _used(stat: str) -> float:
    """User and system time, the 14th and 15th field; the second may hold spaces."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
