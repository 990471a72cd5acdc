"""Clients of the native API: who waits, who polls, who follows the events."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.load.visitor import ENDED, GENERATIONS, Failed, events, expect_png
from tests.load.visits import LEAST_ETA_SECONDS, Visit

Manner = Callable[[Visit], int]

WAIT = {"Prefer": "wait=30"}
POLL_SECONDS = 0.5


def draw(visit: Visit) -> int:
    """In one of four manners."""
    return visit.among((waits, fetches, polls, watches))


def waits(visit: Visit) -> int:
    """With an answer that is held back."""
    record = visit.let_in(lambda: _sent(visit, **WAIT)).json()
    return _drawn(visit, visit.visitor.followed(record["urls"]["self"]))


def fetches(visit: Visit) -> int:
    """The first picture itself, in one request."""
    answer = visit.let_in(lambda: _sent(visit, Accept="image/png", **WAIT))
    if answer.status_code == 202:
        return _drawn(visit, visit.visitor.followed(answer.headers["location"]))
    expect_png(answer.content, visit.order)
    return 1


def polls(visit: Visit) -> int:
    """Looks again and again."""
    record = _accepted(visit)
    path, eta = record["urls"]["self"], record["eta_seconds"]
    while record["status"] not in ENDED:
        time.sleep(POLL_SECONDS)
        record = visit.visitor.get(path)
    return _drawn(visit, record, eta)


def watches(visit: Visit) -> int:
    """Follows the events."""
    record = _accepted(visit)
    _watched(visit, record)
    ended = visit.visitor.get(record["urls"]["self"])
    return _drawn(visit, ended, record["eta_seconds"])


def cancel(visit: Visit) -> int:
    """A moment after it was let in."""
    record = _accepted(visit)
    time.sleep(visit.moment())
    record = visit.record(record["id"])
    visit.cancel(record)
    return 0


def abandon(visit: Visit) -> int:
    """Loses the stream of events after the first, and comes back for the rest: nothing is canceled
    at this door because nobody looks."""
    record = _accepted(visit)
    last = _watched(visit, record, most=1)
    time.sleep(visit.moment())
    _watched(visit, record, after=last)
    return _drawn(visit, visit.visitor.get(record["urls"]["self"]))


def _sent(visit: Visit, **headers: str) -> Any:
    order = visit.order
    body = {
        "checkpoint": order.checkpoint,
        "prompt": order.prompt,
        "width": order.width,
        "height": order.height,
        "num_inference_steps": order.steps,
        "num_images": order.images,
        "seed": order.seed,
        "sampler": order.sampler,
    }
    headers = {"Idempotency-Key": visit.key, **headers}
    return visit.visitor.send("POST", GENERATIONS, json=body, headers=headers)


def _accepted(visit: Visit) -> dict[str, Any]:
    answer = visit.let_in(lambda: _sent(visit))
    visit.visitor.book.accepted(visit.door, visit.visitor.seconds)
    record: dict[str, Any] = answer.json()
    return record


def _watched(visit: Visit, record: dict[str, Any], after: str = "", most: int = 0) -> str:
    """The id of the last event: of `done`, or of so many."""
    path, seen = record["urls"]["events"], 0
    while True:
        headers = {"Last-Event-ID": after} if after else {}
        with closing(visit.visitor.watch(path, **headers)) as stream:
            for id, name, _ in events(stream):
                if id == after:
                    raise Failed("an event was told again after it was seen")
                after, seen = id, seen + 1
                if name == "done" or seen == most:
                    return after


def _drawn(visit: Visit, record: dict[str, Any], eta: float | None = None) -> int:
    """Its pictures, fetched and looked at."""
    if record["status"] != "succeeded":
        raise Failed(f"ended as {record['status']}: {record['error']}")
    if eta is not None and eta >= LEAST_ETA_SECONDS:
        visit.visitor.book.predicted(eta, record["metrics"]["total_seconds"])
    files = []
    for image in record["images"]:
        files.append(visit.visitor.ask("GET", image["url"]).content)
        expect_png(files[-1], visit.order, image["sha256"])
    return visit.pictures(files)
