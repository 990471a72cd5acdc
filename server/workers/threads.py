"""Threads whose tasks nobody waits for, and what ended one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

log = logging.getLogger("darkroom.studio")


class Threads:
    """Runs tasks on pools, and remembers what none of them should have raised. Any thread may
    use it."""

    def __init__(self) -> None:
        self.lost: BaseException | None = None
        """What ended a thread that must go on, if one has ended."""
        self._tasks: set[Future[None]] = set()

    def submit(self, pool: ThreadPoolExecutor, task: Callable[..., None], *arguments: Any) -> None:
        """Run it there, some time.

        Raises:
            RuntimeError: the pool is closed.
        """
        future = pool.submit(self._guarded, task, *arguments)
        self._tasks.add(future)
        future.add_done_callback(self._tasks.discard)

    def wait(self, seconds: float) -> bool:
        """Whether all that was submitted is done within this time."""
        return not wait(set(self._tasks), max(0.0, seconds)).not_done

    def _guarded(self, task: Callable[..., None], *arguments: Any) -> None:
        try:
            task(*arguments)
        except BaseException as error:  # a pool would keep it to itself
            log.critical("a thread of the studio is lost", exc_info=error)
            self.lost = error
