"""The worker's connection to Redis, and patience with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from redis.retry import Retry

from server.broker.dial import dial

log = logging.getLogger("darkroom.worker")

T = TypeVar("T")

SHORTEST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0

AWAY = (ConnectionError, TimeoutError, ResponseError)
"""Redis cannot be reached or refuses writes: the same command may work later."""


def connect(url: str) -> Redis:
    """A connection that never sends a command twice by itself: what became of a transaction whose
    reply was lost, the ledger finds out."""
    return dial(url, retry=Retry(NoBackoff(), 0), socket_timeout=5.0, socket_connect_timeout=2.0)


# Any: redis-py's connections are typed by nobody, and a pipeline's for callers of commands alone.
def look(pipe: Any, watched: Sequence[str], *commands: tuple[str, ...]) -> list[Any]:
    """WATCH these keys, then read: the replies to the commands, in one round trip. Where a command
    is refused, the refusal is in its place.

    Raises:
        ResponseError: the WATCH was refused.
        ConnectionError, TimeoutError: nothing is watched any more.
    """
    # redis-py's own Pipeline would wait for the reply to each. The order in which Redis runs them
    # is the same: what is read here is read under the WATCH.
    connection = pipe.connection = pipe.connection or pipe.connection_pool.get_connection()
    every = [("WATCH", *watched), *commands]
    try:
        connection.send_packed_command(connection.pack_commands(every))
        replies = [_reply(pipe, connection, words[0]) for words in every]
    except (ConnectionError, TimeoutError):
        pipe.watching = False  # else it would be ended on a connection made anew for that
        connection.disconnect()
        raise
    if isinstance(replies[0], ResponseError):
        raise replies[0]
    return replies[1:]


def _reply(pipe: Any, connection: Any, command: str) -> Any:
    try:
        return pipe.parse_response(connection, command)
    except ResponseError as refusal:
        return refusal


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
