"""What a server costs: processor seconds and memory of its whole process tree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import psutil

LOOK_SECONDS = 0.5


@dataclass(slots=True)
class Cost:
    """Of one load."""

    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    """Resident, summed over the processes; what they share is counted in each."""


class Tree:
    """Processes and all that descend from them."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = [psutil.Process(pid) for pid in roots]

    def cpu_seconds(self) -> float:
        """Of all that live, and of those that they have waited for."""
        spent = 0.0
        for process in self._living():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent += times.user + times.system + times.children_user + times.children_system
        return spent

    def resident_bytes(self) -> int:
        """Right now."""
        resident = 0
        for process in self._living():
            with contextlib.suppress(psutil.NoSuchProcess):
                resident += process.memory_info().rss
        return resident

    def send(self, signum: int) -> None:
        """A signal to each."""
        for process in self._living():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signum)

    def _living(self) -> Iterator[psutil.Process]:
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield from (root, *root.children(recursive=True))


@contextlib.asynccontextmanager
async def metered(tree: Tree) -> AsyncIterator[Cost]:
    """What it costs from now until the block ends."""
    cost, before = Cost(), tree.cpu_seconds()
    watching = asyncio.create_task(_watch(tree, cost))
    try:
        yield cost
    finally:
        watching.cancel()
        cost.cpu_seconds = tree.cpu_seconds() - before


async def _watch(tree: Tree, cost: Cost) -> None:
    while True:
        cost.peak_bytes = max(cost.peak_bytes, tree.resident_bytes())
        await asyncio.sleep(LOOK_SECONDS)
