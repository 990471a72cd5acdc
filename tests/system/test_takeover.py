"""A worker dies with four generations in its hands; another draws the same four pictures."""

from __future__ import annotations

import io
import os
import signal
import time
from datetime import datetime
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.system.conftest import Serve
from tests.system.test_serve import await_end, submit

TAKEOVER_SECONDS = 10.0
FOUR: list[dict[str, Any]] = [
    {
        "prompt": f"a {colour} circle on a blue background",
        "num_inference_steps": 60 + 5 * number,
        "sampler": sampler,
        "seed": number,
    }
    for number, (colour, sampler) in enumerate(
        [("red", "euler_a"), ("green", "dpmpp_2m"), ("yellow", "ddim"), ("white", "lms")]
    )
]


def picture(client: httpx.Client, record: dict[str, Any]) -> np.ndarray:
    data = client.get(record["images"][0]["url"]).content
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def await_held(client: httpx.Client, locations: list[str]) -> None:
    """Until all of them are being drawn."""
    waiting = set(locations)
    while waiting:
        states = {where: client.get(where).json()["status"] for where in waiting}
        assert not {"succeeded", "failed"} & set(states.values()), "too quick for this test"
        waiting = {where for where, state in states.items() if state == "queued"}


def test_another_worker_draws_the_same_four_pictures(serve: Serve) -> None:
    served = serve("--worker", "demo", "--worker", "demo")
    with served.client() as client:
        first, second = served.pid("worker 1"), served.pid("worker 2")
        os.kill(second, signal.SIGSTOP)  # so that the first takes all four
        locations = [submit(client, body) for body in FOUR]
        await_held(client, locations)
        os.kill(second, signal.SIGCONT)
        os.kill(first, signal.SIGKILL)
        killed_at = time.time()
        records: list[Any] = [await_end(client, where) for where in locations]
        for body, record in zip(FOUR, records, strict=True):
            assert record["status"] == "succeeded"
            assert f"-{first}-" not in record["metrics"]["worker"]
            taken_over_at = datetime.fromisoformat(record["started_at"]).timestamp()
            assert 0 < taken_over_at - killed_at < TAKEOVER_SECONDS
            twin = client.post("/v1/generations", json=body, headers={"Prefer": "wait=90"}).json()
            assert np.abs(picture(client, record) - picture(client, twin)).max() <= 1
