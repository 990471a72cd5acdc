"""A worker in a process of its own, to be killed. Its argument: what `main` takes, as JSON."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import time
from typing import Any

from server.config import Settings
from server.errors import DeviceLost
from server.workers import ledger
from server.workers.books import Books
from server.workers.entry import Entry
from server.workers.link import connect
from server.workers.stage import Claim
from server.workers.watchdog import Watchdog
from server.workers.worker import BatchWorker
from tests.queue.crew import Counts
from tests.queue.scripted import ScriptedStudio


class Doomed(ScriptedStudio):
    """A studio for which a generation with the fatal seed is the end: by `doom`."""

    fatal_seed = -1
    doom = "exit"

    def progress(self) -> Any:
        if self._doomed("exit"):
            time.sleep(0.1)  # others may still be claimed beside it
            os._exit(9)
        return super().progress()

    def admit(self, claim: Claim) -> None:
        super().admit(claim)
        if self._doomed("freeze"):
            ctypes.PyDLL(None).sleep(600)  # which keeps the interpreter's lock

    def step_age(self) -> float:
        return 1000.0 if self._doomed("hang") else 0.0

    def lost(self) -> BaseException | None:
        return DeviceLost("an illegal memory access") if self._doomed("lose") else None

    def close(self, seconds: float) -> bool:
        return super().close(seconds) and self.doom != "never end"

    def _doomed(self, doom: str) -> bool:
        fatal = any(claim.spec.seed == self.fatal_seed for claim in self.claims.values())
        return fatal and self.doom == doom


def die(*_: Any) -> None:
    """As if killed: nothing is closed, written or said."""
    os.kill(os.getpid(), signal.SIGKILL)


class MortalBooks(Books):
    """Dies where it would hand on: before the transaction is sent, or before its reply is read."""

    def hand_on(self, entry: Entry, *arguments: Any) -> None:
        if self.dies == "before handing on":
            die()
        super().hand_on(entry, *arguments)
        if self.dies == "after handing on":
            entry.pipe.parse_response = die  # type: ignore[method-assign]

    dies = ""


def main(
    settings: dict[str, Any],
    checkpoint: str,
    studio: dict[str, Any],
    name: str,
    state: dict[str, Any],
    dies: str,
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(message)s")
    scripted = Doomed(**studio)
    for attribute, value in state.items():
        setattr(scripted, attribute, value)
    MortalBooks.dies = dies
    ledger.Books = MortalBooks  # type: ignore[misc]
    parts = Settings(**settings)
    BatchWorker(
        parts,
        checkpoint,
        scripted,
        redis=connect(parts.redis),
        name=name,
        device="cpu",
        observer=Counts(),
        watchdog=Watchdog(parts.hang_seconds),
    ).work()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
