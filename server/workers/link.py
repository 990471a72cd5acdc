"""The worker's connection to Redis, and patience with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from redis.retry import Retry

log = logging.getLogger("darkroom.worker")

T = TypeVar("T")

SHORTEST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0

AWAY = (ConnectionError, TimeoutError, ResponseError)
"""Redis cannot be reached or refuses writes: the same command may work later."""


def connect(url: str) -> Redis:
    """A connection that never sends a command twice by itself: what became of a transaction whose
    reply was lost, the ledger finds out."""
    return Redis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=5.0, socket_connect_timeout=2.0
    )


def persist(action: Callable[[], T], give_up: Callable[[], bool] = lambda: False) -> T | None:
    """The value of `action`, tried until Redis is there; None if given up before."""
    pause = SHORTEST_PAUSE_SECONDS
    while True:
        try:
            return action()
        except AWAY as error:
            if give_up():
                return None
            if pause == SHORTEST_PAUSE_SECONDS:
                log.warning("waiting for Redis: %s", error)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
