"""The ladder of loads, climbed until something is at its end, and what that comes to."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.control.clients import Crowd
from benchmarks.control.crew import pictures_per_second
from benchmarks.control.house import House, house
from benchmarks.control.report import HEAD, line, save
from benchmarks.control.sums import Reading, Rung, bottleneck, cores_used, quantile, rung
from benchmarks.timing import Figure, at_most, noted

SHARE = 0.9
"""Of what the workers can draw."""
NAMES = {"gateway": "gateway", "redis": "Redis", "worker": "worker beside PNG and store"}


@dataclass(frozen=True, slots=True)
class Ladder:
    """What is climbed."""

    workers: Sequence[int] = (1, 2, 4, 8, 16, 32)
    each: int = 4
    """Workers in a process."""
    gateways: int = 1
    steps: int = 30
    rest_seconds: float = 2.0
    warm_seconds: float = 3.0
    seconds: float = 8.0


def figures(out: Path | None = None, ladder: Ladder | None = None) -> Iterator[Figure]:
    """What the last rung that was kept up with has cost, and what that comes to; the rungs as a
    table, too."""
    ladder, rungs = ladder or Ladder(), []
    print(HEAD)
    for found in climb(ladder):
        print(line(found), flush=True)
        rungs.append(found)
    if out:
        save(rungs, out)
    yield from summed_up(rungs)


def climb(ladder: Ladder) -> Iterator[Rung]:
    """Rung by rung, until what is asked for is not kept up with."""
    with house(ladder.gateways) as here:
        for workers in ladder.workers:
            here.hire(workers, ladder.each)
            found = asyncio.run(loaded(here, ladder))
            yield found
            if not found.kept_up:
                return


async def loaded(here: House, ladder: Ladder) -> Rung:
    """As many generations as its workers can just draw, after a rest."""
    crowd = Crowd(here.url, ladder.steps)
    rate = SHARE * here.workers * pictures_per_second(ladder.steps)
    chance = random.Random(here.workers)
    resting, rested = await readings(here, ladder.rest_seconds)
    seconds = ladder.warm_seconds + ladder.seconds
    load = asyncio.create_task(crowd.come(rate, seconds, chance))
    await asyncio.sleep(ladder.warm_seconds)
    before, after = await readings(here, ladder.seconds)
    await load
    crowd.leave()
    return rung(
        before,
        after,
        workers=here.workers,
        asked=crowd.asked,
        refused=crowd.refused,
        rest=cores_used(resting, rested),
        accepts=crowd.accepts,
        ends=crowd.ends,
        queued=crowd.queued,
    )


async def readings(here: House, seconds: float) -> tuple[Reading, Reading]:
    """Two, with so much time between them."""
    before = await asyncio.to_thread(here.read)
    await asyncio.sleep(seconds)
    return before, await asyncio.to_thread(here.read)


def summed_up(rungs: Sequence[Rung]) -> Iterator[Figure]:
    """By the rung on which most was done."""
    best, last = max(rungs, key=lambda each: each.done), rungs[-1]
    end = bottleneck(last, os.cpu_count() or 1) or "nothing, there were no more workers"
    detail = f"{best.workers} workers that sleep by a calculated curve; held back by {end}"
    yield noted("(u) generations through the control plane", best.done, "/s", detail)
    detail = f"p50 {1000 * quantile(best.accept, 0.5):.1f} ms, at {best.done:.0f} generations/s"
    yield at_most("(v) time to accept one, p95", 1000 * best.accept_p95, 100, "ms", detail)
    for letter, part in zip("wxy", NAMES, strict=True):
        detail = f"calculated: {best.limit(part) or 0:.0f} generations/s for each core of it"
        yield noted(f"({letter}) CPU of a generation, {NAMES[part]}", best.cost(part), "us", detail)
