"""One visit: a client comes in at a door and gets what it came for, cancels it, or leaves. Knows in
which order things happen, not how each door says them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from tests.load.population import Door, Kind, Order
from tests.load.visitor import ENDED, GENERATIONS, Closing, Failed, Visitor, expect_png

T = TypeVar("T")

MOMENT_SECONDS = 1.0
"""At most so long after it was let in somebody cancels or leaves."""
HEED_SECONDS = 1
"""What still has steps to draw so long after it was canceled has to end as such."""
FIND_SECONDS, LOOK_SECONDS = 3.0, 0.5
LEAST_ETA_SECONDS = 0.5
"""Shorter predictions are not compared: what HTTP takes is in none of them."""


@dataclass(slots=True)
class Visit:
    """What a visitor does now."""

    visitor: Visitor
    door: Door
    kind: Kind
    order: Order
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Its Idempotency-Key: what is sent again is one generation."""

    def let_in(self, send: Callable[[], T]) -> T:
        """Send it until it is let in."""
        return self.visitor.persist(self.door, self.kind, send)

    def moment(self) -> float:
        """Some seconds, as people hesitate."""
        return self.visitor.dice.uniform(0.1, MOMENT_SECONDS)

    def among(self, manners: tuple[Callable[[Visit], int], ...]) -> int:
        """In one of these manners."""
        return self.visitor.dice.choice(manners)(self)

    def pictures(self, files: list[bytes]) -> int:
        """How many they are, if they are what was asked for.

        Raises:
            Failed: they are not.
        """
        if len(files) != self.order.images:
            raise Failed(f"{len(files)} pictures and not {self.order.images}")
        for file in files:
            expect_png(file, self.order)
        return len(files)

    def stopped(self, record: dict[str, Any], stop: Callable[[], object]) -> bool:
        """Cancel it in the way that `stop` does; whether that came in time.

        Raises:
            Failed: it was not heeded.
        """
        stop()
        path = record["urls"]["self"]
        now = self.visitor.get(path, Prefer=f"wait={HEED_SECONDS}")
        heeded = now["status"] in ENDED or now["progress"]["fraction"] == 1
        ended = self.visitor.followed(path)
        if ended["status"] == "canceled":
            return True
        if ended["status"] != "succeeded" or not heeded:
            raise Failed(f"canceled, was still {now['status']} then, and ended: {ended['status']}")
        return False

    def cancel(self, record: dict[str, Any]) -> bool:
        """The same by the native API."""
        path = record["urls"]["cancel"]
        return self.stopped(record, lambda: self.visitor.ask("POST", path))

    def found(self) -> dict[str, Any] | None:
        """What was let in for somebody who did not wait to be told; it may just be on its way."""
        until = time.monotonic() + FIND_SECONDS
        while (record := self.visitor.found(self.order)) is None and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        return record

    def deserted(self, record: dict[str, Any] | None) -> int:
        """Who waited for it at a synchronous door has left. No pictures.

        Raises:
            Failed: it is drawn all the same.
        """
        if record is not None:  # else they left before it was let in
            ended = self.visitor.followed(record["urls"]["self"], self.visitor.left_seconds)
            if ended["status"] not in ("canceled", "succeeded"):
                raise Failed(f"abandoned, and ended as {ended['status']}")
        return 0

    def record(self, id: str) -> dict[str, Any]:
        """What the native API says of it."""
        record: dict[str, Any] = self.visitor.get(f"{GENERATIONS}/{id}")
        return record


def accomplish(visit: Visit, talk: Callable[[Visit], int]) -> None:
    """All of it, and what came of it written down."""
    visitor, door, kind = visit.visitor, visit.door, visit.kind
    visitor.book.seeds.add(visit.order.seed)
    try:
        pictures = talk(visit)
    except Closing:
        return
    except (Failed, httpx.HTTPError, ValueError, KeyError) as error:
        why = str(error) if isinstance(error, Failed) else repr(error)
        visitor.book.failed(door, kind, visitor.seconds, why)
    else:
        visitor.book.ended(door, kind, visitor.seconds, pictures)
