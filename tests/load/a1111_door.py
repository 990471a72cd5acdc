"""Clients of the A1111 door: who waits, who interrupts, who hangs up."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx

from tests.load.visitor import Failed
from tests.load.visits import Visit

PATH = "/sdapi/v1/txt2img"
LOOK_SECONDS = 0.1


def draw(visit: Visit) -> int:
    """And wait for the answer."""
    return visit.pictures(_pictures(_drawn(visit)))


def cancel(visit: Visit) -> int:
    """As the web UI does: look whether it is drawn, then interrupt. With a key that would stop all
    of the key's, so there it is canceled by its id."""
    visit.visitor.get("/sdapi/v1/options")  # brings the cookie that says who one is
    with ThreadPoolExecutor(1) as beside:
        drawing = beside.submit(_drawn, visit)
        record = _begun(visit, drawing)
        if record is None:
            return visit.pictures(_pictures(drawing.result()))
        interrupted = visit.cancel(record) if visit.visitor.key else _interrupted(visit, record)
        answer = drawing.result()
    if not interrupted:
        return visit.pictures(_pictures(answer))
    if answer["images"] or not json.loads(answer["info"])["interrupted"]:
        raise Failed("interrupted, and answered as if it were not")
    return 0


def abandon(visit: Visit) -> int:
    """Before there is an answer."""
    try:
        answer = _drawn(visit, timeout=httpx.Timeout(None, read=visit.moment()))
    except httpx.ReadTimeout:
        return visit.deserted(visit.found())
    return visit.pictures(_pictures(answer))


def _drawn(visit: Visit, **options: Any) -> dict[str, Any]:
    order = visit.order
    body = {
        "prompt": order.prompt,
        "width": order.width,
        "height": order.height,
        "steps": order.steps,
        "batch_size": order.images,
        "seed": order.seed,
        "sampler_name": order.sampler,
        "override_settings": {"sd_model_checkpoint": order.checkpoint},
    }
    headers = {"Idempotency-Key": visit.key}
    answer: dict[str, Any] = visit.let_in(
        lambda: visit.visitor.send("POST", PATH, json=body, headers=headers, **options)
    ).json()
    return answer


def _begun(visit: Visit, drawing: Future[dict[str, Any]]) -> dict[str, Any] | None:
    """Its record, as soon as the door shows that it is there; None if it was quicker."""
    while not drawing.done():
        time.sleep(LOOK_SECONDS)
        shown = visit.visitor.key or visit.visitor.get("/sdapi/v1/progress")["state"]["job_count"]
        if shown and (record := visit.visitor.found(visit.order)):
            return record
    return None


def _interrupted(visit: Visit, record: dict[str, Any]) -> bool:
    return visit.stopped(record, lambda: visit.visitor.ask("POST", "/sdapi/v1/interrupt"))


def _pictures(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(each) for each in answer["images"]]
