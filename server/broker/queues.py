"""How long the queues are, and who works on them."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from rq import Queue
from rq.registry import StartedJobRegistry

from server.broker import keys
from server.broker.record import WorkerInfo
from server.forecast import Speed
from server.spec import GENERATION_ID, made_at

log = logging.getLogger("darkroom.broker")

ASKED = 5
"""Replies for each queue."""


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One checkpoint's queue, and what its workers make of it."""

    checkpoint: str
    queued: int
    running: int
    workers: tuple[WorkerInfo, ...]
    queued_seconds: float = 0.0
    """Of work, predicted, of one worker."""
    first: str = ""
    """Id of the one that is first in the list; empty where none waits."""

    @property
    def oldest_seconds(self) -> float:
        """Since that one was accepted; 0 where none waits."""
        if not re.fullmatch(GENERATION_ID, self.first):
            return 0.0
        return max(0.0, time.time() - made_at(self.first))

    @property
    def ready(self) -> int:
        """Workers that take more."""
        return sum(worker.state == "ready" for worker in self.workers)

    @property
    def states(self) -> dict[str, int]:
        """How many of its workers take more, and how many only finish what they hold."""
        return {"ready": self.ready, "draining": len(self.workers) - self.ready}

    @property
    def speeds(self) -> list[Speed]:
        """Of its ready workers, as far as they have said."""
        ready = (worker for worker in self.workers if worker.state == "ready")
        return [worker.speed for worker in ready if worker.speed is not None]

    @property
    def sizes(self) -> list[int]:
        """Pixels of the largest picture that each ready worker has the memory for; 0: unknown."""
        ready = (worker for worker in self.workers if worker.state == "ready")
        return [worker.speed.largest_pixels if worker.speed else 0 for worker in ready]

    @property
    def work_seconds(self) -> float:
        """Of work that is left of what its ready workers hold."""
        return sum(worker.work_seconds for worker in self.workers if worker.state == "ready")

    @property
    def rows(self) -> float:
        """Native rows of what its ready workers hold."""
        return sum(worker.rows for worker in self.workers if worker.state == "ready")

    @property
    def capacity(self) -> int:
        """Images that one of its ready workers holds, the smallest."""
        ready = [worker.capacity for worker in self.workers if worker.state == "ready"]
        return min(ready, default=1)

    @property
    def wait_seconds(self) -> float | None:
        """Predicted seconds until all that is here now is done; None where nobody has measured."""
        if not self.speeds:
            return None
        return (self.queued_seconds + self.work_seconds) / self.ready


async def read_queues(redis: Any, checkpoints: Sequence[str]) -> list[QueueInfo]:
    """All of them in two round trips. RQ is only asked for the names of its keys."""
    async with redis.pipeline(transaction=False) as pipe:
        for name in checkpoints:
            pipe.llen(Queue(name, connection=redis).key)
            pipe.zcard(StartedJobRegistry(name, connection=redis).key)
            pipe.smembers(keys.workers(name))
            pipe.hvals(keys.load(name))
            pipe.lindex(Queue(name, connection=redis).key, 0)
        counted = await pipe.execute()
    members = [sorted(names) for names in counted[2::ASKED]]
    async with redis.pipeline(transaction=False) as pipe:
        for worker in chain.from_iterable(members):
            pipe.hgetall(keys.worker(worker.decode(errors="replace")))
        said = iter(await pipe.execute())
    workers = [tuple(_readable(islice(said, len(names)))) for names in members]
    return [
        QueueInfo(
            name,
            queued,
            running,
            here,
            sum(map(float, seconds)),
            (first or b"").decode(errors="replace"),
        )
        for name, queued, running, seconds, first, here in zip(
            checkpoints,
            counted[0::ASKED],
            counted[1::ASKED],
            counted[3::ASKED],
            counted[4::ASKED],
            workers,
            strict=True,
        )
    ]


def _readable(found: Iterable[dict[bytes, bytes]]) -> Iterator[WorkerInfo]:
    """Those that are there; one that cannot be read must not take the others with it."""
    for raw in found:
        try:
            if raw:
                yield WorkerInfo.from_hash(raw)
        except ValueError as error:
            log.error("a worker's record cannot be read: %s", type(error).__name__)
