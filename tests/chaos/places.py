"""Named places at which a worker of the tests kills itself, wrapped around the worker's methods.

Production code knows nothing of them. A change of the ledger has three moments: before its
transaction is sent, when it was sent and its reply was not heard, and after that.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from server.spec import GenerationState
from server.storage import ObjectImageStore
from server.workers.archive import Archive
from server.workers.books import Books
from server.workers.entry import Entry
from server.workers.ledger import Ledger, Taken
from server.workers.simulated import SimulatedDenoiser
from server.workers.studio import EngineStudio

HEARS = "parse_response"
"""The method with which a transaction of redis-py reads its replies."""


class When(Enum):
    """It dies before the call, when its transaction was sent, or after the call."""

    BEFORE = auto()
    SENT = auto()
    AFTER = auto()


class Needs(Enum):
    """What must happen to others before a worker can come to the place."""

    NOTHING = auto()
    A_DEATH = auto()
    A_STRANDED_ID = auto()
    """A worker that died between pop and claim."""
    A_GOODBYE = auto()
    """It is told to stop itself, and not to wait."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where it dies: at such a call, if its answer is one that counts."""

    owner: type
    method: str
    when: When
    counts: Callable[[Any], bool] = lambda answer: True
    needs: Needs = Needs.NOTHING


def _succeeded(answer: Any) -> bool:
    return answer is GenerationState.SUCCEEDED


PLACES = {
    "popped": Place(Ledger, "pop", When.AFTER, lambda id: id is not None),
    "before claiming": Place(Books, "start", When.BEFORE),
    "claim not heard": Place(Books, "start", When.SENT),
    "claimed": Place(Ledger, "claim", When.AFTER, lambda answer: isinstance(answer, Taken)),
    "in a step": Place(SimulatedDenoiser, "predict", When.BEFORE),
    "before publishing": Place(Archive, "publish", When.BEFORE),
    "one image published": Place(ObjectImageStore, "put", When.AFTER),
    "published": Place(Archive, "publish", When.AFTER),
    "before finishing": Place(Books, "succeed", When.BEFORE),
    "finish not heard": Place(Books, "succeed", When.SENT),
    "finished": Place(Ledger, "finish", When.AFTER, _succeeded),
    "before handing on": Place(Books, "hand_on", When.BEFORE),
    "handing on not heard": Place(Books, "hand_on", When.SENT),
    "before discarding": Place(EngineStudio, "discard", When.BEFORE),
    "before postponing": Place(Books, "postpone", When.BEFORE),
    "postponing not heard": Place(Books, "postpone", When.SENT),
    "before bringing forward": Place(Books, "bring_forward", When.BEFORE),
    "bringing forward not heard": Place(Books, "bring_forward", When.SENT),
    "in a takeover": Place(Books, "charge", When.BEFORE, needs=Needs.A_DEATH),
    "takeover not heard": Place(Books, "charge", When.SENT, needs=Needs.A_DEATH),
    "in a restore": Place(Ledger, "_restore", When.AFTER, bool, Needs.A_STRANDED_ID),
    "restore not heard": Place(Ledger, "_restore", When.SENT, bool, Needs.A_STRANDED_ID),
    "before handing back": Place(Ledger, "_hand_back", When.AFTER, bool, Needs.A_GOODBYE),
    "handing back not heard": Place(Ledger, "_hand_back", When.SENT, bool, Needs.A_GOODBYE),
}


def die(*_: Any) -> None:
    """As if killed: nothing is closed, written or said."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(name: str, times: int = 1) -> None:
    """From now on this process dies when it has come to the place so many times."""
    place = PLACES[name]
    call = getattr(place.owner, place.method)
    lock, left = threading.Lock(), [times]

    def reached() -> bool:
        with lock:
            left[0] -= 1
            return left[0] <= 0

    @functools.wraps(call)
    def mortal(*arguments: Any, **named: Any) -> Any:
        if place.when is When.BEFORE and reached():
            die()
        answer = call(*arguments, **named)
        if place.when is When.BEFORE or not place.counts(answer):
            return answer
        if reached():
            if place.when is When.AFTER:
                die()
            entry = next(each for each in arguments if isinstance(each, Entry))
            setattr(entry.pipe, HEARS, die)
        return answer

    setattr(place.owner, place.method, mortal)
