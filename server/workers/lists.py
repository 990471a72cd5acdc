"""What RQ's lists of a queue hold that somebody must look at. Only reads; the ledger decides."""

from __future__ import annotations

import time
from typing import Any

from rq import Queue

from server.broker import keys
from server.workers.entry import is_id, job_and_execution


class Lists:
    """Of one queue."""

    def __init__(self, queue: Queue, redis: Any) -> None:
        self._redis = redis
        self._intermediate = queue.intermediate_queue_key
        self._postponed = queue.scheduled_job_registry.key
        self._started = queue.started_job_registry.key

    def due(self) -> list[str]:
        """The ids of what was postponed and is due."""
        found = self._redis.zrangebyscore(self._postponed, 0, time.time())
        return [raw.decode() for raw in found if is_id(raw)]

    def stranded(self) -> list[str]:
        """The ids in the intermediate list: being claimed, or left there by a death."""
        found = self._redis.lrange(self._intermediate, 0, -1)
        return [raw.decode() for raw in found if is_id(raw)]

    def unleased(self) -> list[tuple[str, str]]:
        """Job and execution of everything that is started but has no lease, oldest first, so
        that whoever claims meanwhile begins with the oldest."""
        # Not by RQ's reader: it cleans up first, which loses jobs, and trips over strange members.
        # Its scores are of whole seconds, so they do not tell the order.
        members = sorted(self._redis.zrange(self._started, 0, -1))
        started = [pair for member in members if (pair := job_and_execution(member))]
        with self._redis.pipeline(transaction=False) as pipe:
            for _, execution in started:
                pipe.exists(keys.lease(execution))
            leased = pipe.execute()
        return [
            (id, execution)
            for (id, execution), alive in zip(started, leased, strict=True)
            if not alive
        ]
