"""How long the queues are, and who works on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from rq import Queue
from rq.registry import StartedJobRegistry

from server.broker import keys
from server.broker.record import WorkerInfo

log = logging.getLogger("darkroom.broker")


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One checkpoint's queue, and what its workers make of it."""

    checkpoint: str
    queued: int
    running: int
    workers: tuple[WorkerInfo, ...]

    def wait_seconds(self, ahead: int) -> float | None:
        """Predicted seconds until `ahead` generations are done; None before there is a measure."""
        rate = sum(1 / w.pace_seconds for w in self.workers if w.pace_seconds > 0)
        return ahead / rate if rate else None


async def read_queues(redis: Any, checkpoints: Sequence[str]) -> list[QueueInfo]:
    """All of them in two round trips. RQ is only asked for the names of its keys."""
    async with redis.pipeline(transaction=False) as pipe:
        for name in checkpoints:
            pipe.llen(Queue(name, connection=redis).key)
            pipe.zcard(StartedJobRegistry(name, connection=redis).key)
            pipe.smembers(keys.workers(name))
        counted = await pipe.execute()
    members = [sorted(names) for names in counted[2::3]]
    async with redis.pipeline(transaction=False) as pipe:
        for worker in chain.from_iterable(members):
            pipe.hgetall(keys.worker(worker.decode(errors="replace")))
        said = iter(await pipe.execute())
    workers = [tuple(_readable(islice(said, len(names)))) for names in members]
    return [
        QueueInfo(name, queued, running, here)
        for name, queued, running, here in zip(
            checkpoints, counted[0::3], counted[1::3], workers, strict=True
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
