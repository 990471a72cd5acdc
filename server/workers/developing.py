"""From what left the engine to pixels, on a publisher's thread. Knows no store.

    picture ─▶ NaN, infinite or blank? once more, its autoencoder in float32 ─▶ NaN: it fails
                                                                             └▶ else it is shown

A picture that is blank in float32 too is what its latents say, as a prompt may well ask for: it is
shown, with a warning. Only what no autoencoder can make a picture of fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from server.errors import NotFinite
from server.metrics import WorkerMetrics
from server.spec import Warn
from server.workers.calls import Calls
from server.workers.denoiser import Picture
from server.workers.engine import Ticket
from server.workers.flight import Flight

log = logging.getLogger("darkroom.studio")


class Developer:
    """`decode_again` is the denoiser's."""

    def __init__(
        self, decode_again: Callable[[Any], Picture | None], calls: Calls, metrics: WorkerMetrics
    ) -> None:
        self._decode_again = decode_again
        self._calls = calls
        self._metrics = metrics

    def develop(self, flight: Flight) -> tuple[list[Any], tuple[Warn, ...]]:
        """Pixels or latents of all its pictures, and what is said of them.

        Raises:
            NotFinite: one is none, in float32 neither.
            OutOfMemory: one came out as none, and does not fit in float32.
        """
        made, warnings = [], []
        for ticket in flight.tickets:
            pixels, warned = self._one(ticket, flight.pictures[ticket.index])
            made.append(pixels)
            warnings += warned
        return made, tuple(warnings)

    def _one(self, ticket: Ticket, picture: Picture) -> tuple[Any, list[Warn]]:
        with self._calls.watched():
            pixels = _taken(picture)
        if pixels is not None:
            return pixels, []
        about = {"generation": ticket.id}
        log.warning("image %d came out NaN, infinite or blank", ticket.index, extra=about)
        with self._calls.watched():
            return self._once_more(ticket, picture)

    def _once_more(self, ticket: Ticket, picture: Picture) -> tuple[Any, list[Warn]]:
        count = self._metrics.decoded_again_total.labels
        try:
            again = self._decode_again(ticket.state) or picture
            pixels, blank = again.array(), again.blank
        except NotFinite:
            count("not_finite").inc()
            raise
        count("blank" if blank else "picture").inc()
        return pixels, [_blank(ticket.index) if blank else _mended(ticket.index)]


def _taken(picture: Picture) -> Any:
    """Its pixels; None where it cannot be what was drawn."""
    try:
        pixels = picture.array()
    except NotFinite:
        return None
    return None if picture.blank else pixels


def _mended(index: int) -> Warn:
    message = (
        f"image {index} came out of the autoencoder NaN, infinite or blank, so it was decoded once"
        " more in float32"
    )
    return Warn(code="decoded_in_float32", message=message)


def _blank(index: int) -> Warn:
    message = (
        f"image {index} is one colour or black; its latents are sound, and in float32 the"
        " autoencoder makes the same of them"
    )
    return Warn(code="blank_picture", message=message)
