"""From a claim to its tickets, on the preparing thread: loads what it starts from, then prepares
image by image. Knows no queue and not how a flight ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

from server.errors import OutOfMemory
from server.pixels import Inputs
from server.workers.archive import Archive
from server.workers.calls import Calls
from server.workers.denoiser import Denoiser, State
from server.workers.engine import Ticket
from server.workers.flight import Flight, heed
from server.workers.showing import Showing
from server.workers.stage import Claim

log = logging.getLogger("darkroom.studio")


class Preparer:
    """Stops between two images when `closing` is set."""

    def __init__(
        self,
        archive: Archive,
        calls: Calls,
        denoiser: Denoiser,
        showing: Showing,
        closing: threading.Event,
    ) -> None:
        self._archive = archive
        self._calls = calls
        self._denoiser = denoiser
        self._showing = showing
        self._closing = closing

    def make_ready(self, flight: Flight) -> None:
        """Give the flight its tickets; not all of them, if it ends meanwhile.

        Raises:
            Unavailable: the store cannot be reached; try again later.
            GenerationFailed, InvalidSpec, OutOfMemory: it cannot be drawn.
        """
        claim = flight.claim
        inputs = self._archive.inputs(claim)
        flight.encode_began = began = time.monotonic()
        deadline = began + claim.deadline - time.time()
        flight.tickets = list(self._tickets(flight, inputs, deadline))
        flight.encode_seconds = time.monotonic() - began

    def _tickets(
        self, flight: Flight, inputs: Sequence[Inputs], deadline: float
    ) -> Iterator[Ticket]:
        claim, priority = flight.claim, flight.claim.spec.priority
        for index, given in enumerate(inputs):
            if flight.over or self._closing.is_set():
                return
            state = self._prepared(claim, index, given)
            heed(claim.spec.strict, state.warnings)
            yield Ticket(claim.id, index, state, priority, deadline, claim.execution)

    def _prepared(self, claim: Claim, index: int, given: Inputs) -> State:
        """Tried once more without what is kept, where it does not fit beside that."""
        try:
            return self._call(claim, index, given)
        except OutOfMemory as error:
            log.warning("trying again: %s", error, extra={"generation": claim.id})
        # Not under `except`: the error holds on to all that the failed call had in memory.
        self._denoiser.make_room()
        return self._call(claim, index, given)

    def _call(self, claim: Claim, index: int, given: Inputs) -> State:
        with self._calls.watched():
            stage = self._showing.allowed(claim.stage)
            return self._denoiser.prepare(stage, index, given)
