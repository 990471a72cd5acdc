"""A process of real workers, one for each checkpoint, that draw without a model, fail now and then,
and die where they are told to."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

from server.config import Settings
from server.workers import ledger
from server.workers.simulated import SimulatedDenoiser, SimulatedState
from tests.chaos.places import arm
from tests.fuzz.worker import simulated

PR_SET_PDEATHSIG = 1
FAULTY = 9
"""Of so many seeds one fails the first time that a process draws it."""

RETRY_SECONDS = (0.3,) * 20
"""More than in production, as each new process fails anew."""


class Faulty(SimulatedDenoiser):
    """Fails as a device does now and then, through no fault of the request."""

    def __init__(self) -> None:
        super().__init__(lambda rows: 0.03 + 0.001 * rows)
        self._failed: set[int] = set()

    def advance(self, state: SimulatedState, prediction: int) -> None:
        if state.seed % FAULTY == 0 and state.seed not in self._failed:
            self._failed.add(state.seed)
            raise RuntimeError("a fault of ours")
        super().advance(state, prediction)


def main(
    settings: dict[str, Any],
    checkpoints: tuple[str, ...],
    name: str,
    log: str,
    dies: str,
    times: int,
) -> None:
    """Serve until a signal says stop."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with Path(log).open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format=f"{name} %(relativeCreated)d %(message)s")
    ledger.RETRY_SECONDS = RETRY_SECONDS  # type: ignore[assignment]
    if dies:
        arm(dies, times)
    parts = Settings(**settings)
    workers = [
        simulated(parts, each, denoiser=Faulty(), name=f"{name}-{each}") for each in checkpoints
    ]

    def stop(*_: Any) -> None:
        for worker in workers:
            worker.request_stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    threads = [threading.Thread(target=worker.work) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.1)  # not for ever: a signal just before it waits would wake nobody
