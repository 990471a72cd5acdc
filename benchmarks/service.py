"""What the gateway and the queue add, measured over HTTP against a private server."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator

import httpx

from benchmarks.timing import Figure, alternate, at_most
from server import private
from server.config import Settings


@contextlib.contextmanager
def private_server() -> Iterator[httpx.Client]:
    """A client of `darkroom serve` on a free port with a data directory of its own."""
    with (
        private.private_server(Settings(), "demo") as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def claim(client: httpx.Client, count: int) -> Figure:
    """(d) From acceptance to the claim by an idle worker."""
    seconds = []
    for seed in range(count):
        record = _draw(client, seed=seed, num_inference_steps=1, guidance_scale=1.0).json()
        seconds.append(record["metrics"]["queue_seconds"])
    p50 = 1000 * statistics.median(seconds)
    p95 = 1000 * statistics.quantiles(seconds, n=20)[-1]
    detail = f"{count} generations, one after the other; p95 {p95:.2f} ms"
    return at_most("(d) enqueue to claimed, p50", p50, 1.0, "ms", detail)


def latency(client: httpx.Client, pipeline_call: Callable[[], object], rounds: int) -> Figure:
    """(e) One client, one picture at a time, as bytes of a PNG, over the bare pipeline call."""

    def over_http() -> None:
        _draw(client, accept="image/png", seed=1, num_inference_steps=20)

    seconds = alternate({"http": over_http, "pipeline": pipeline_call}, rounds)
    http, pipeline = (1000 * statistics.median(s) for s in seconds.values())
    return at_most(
        "(e) end to end less the bare pipeline call, one client",
        http - pipeline,
        25.0,
        "ms",
        f"http {http:.0f} ms, pipeline {pipeline:.0f} ms, medians of {rounds} alternating runs",
    )


def _draw(client: httpx.Client, accept: str = "application/json", **body: object) -> httpx.Response:
    answer = client.post(
        "/v1/generations",
        json={"prompt": "a red circle on a blue background", "guidance_scale": 4.0} | body,
        headers={"Prefer": "wait=60", "Accept": accept},
    )
    answer.raise_for_status()
    return answer
