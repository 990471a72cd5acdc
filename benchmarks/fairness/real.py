"""Small and large pictures sent to a real server: how much longer each kind takes than alone, and
how far it was off with what it promised when it accepted them."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

from benchmarks.fairness.study import KINDS, Arrival, Kind, capacity, poisson
from benchmarks.load import PATIENCE_SECONDS
from benchmarks.timing import Figure, at_most, noted
from server.fleet.figures import quantile
from server.forecast import Speed
from server.workers.planner import choose

SHARE = 0.6
"""Of what its worker can draw, by the speed that it has measured of itself."""
TRIES = 3
"""Of each kind alone."""


@dataclass(frozen=True, slots=True)
class Told:
    """One generation."""

    kind: Kind
    eta: float
    """Seconds that were predicted when it was accepted."""
    took: float

    @property
    def error(self) -> float:
        """Over what it took; above nothing where it was done sooner than predicted."""
        return (self.eta - self.took) / self.took


def figures(name: str, url: str, seconds: float) -> Iterator[Figure]:
    """Of the server's demo worker, for so many seconds."""
    alone, drawn = asyncio.run(_measure(url, seconds))
    for kind in KINDS:
        slow_downs = sorted(t.took / alone[kind] for t in drawn if t.kind is kind)
        p50, p95 = quantile(slow_downs, 0.5), quantile(slow_downs, 0.95)
        detail = f"{len(slow_downs)} of {kind.side} x {kind.side}, {alone[kind]:.2f} s alone"
        label = f"(s) {name}: {kind.name} over alone, p95"
        yield noted(label, p95, "x", f"p50 {p50:.2f}; {detail}")
    for kind in (None, *KINDS):
        errors = [told.error for told in drawn if kind in (None, told.kind)]
        yield _error(name, kind.name if kind else "all", errors)


def _error(name: str, kind: str, errors: Sequence[float]) -> Figure:
    off = sorted(map(abs, errors))
    p50, p90 = (100 * quantile(off, share) for share in (0.5, 0.9))
    detail = f"p90 {p90:.0f} %; the middle one {100 * statistics.median(errors):+.0f} %"
    label = f"(t) {name}: error of eta_seconds, {kind}, p50"
    if kind == "all":
        return at_most(label, p50, 25.0, "%", detail)
    return noted(label, p50, "%", detail)


async def _measure(url: str, seconds: float) -> tuple[dict[Kind, float], list[Told]]:
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2)
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=PATIENCE_SECONDS, trust_env=False
    ) as client:
        alone = {kind: await _alone(client, kind) for kind in KINDS}
        rate = SHARE * capacity(KINDS, await _speed(client), choose)
        arrivals = poisson(KINDS, rate, max(2, int(rate * seconds)))
        return alone, await asyncio.gather(*(_later(client, each) for each in arrivals))


async def _speed(client: httpx.AsyncClient) -> Speed:
    queues = (await client.get("/v1/queue")).json()["checkpoints"]
    [said] = [worker["speed"] for queue in queues for worker in queue["workers"]]
    return Speed.model_validate(said)


async def _alone(client: httpx.AsyncClient, kind: Kind) -> float:
    return min([(await _draw(client, kind)).took for _ in range(TRIES)])


async def _later(client: httpx.AsyncClient, arrival: Arrival) -> Told:
    await asyncio.sleep(arrival.at)
    return await _draw(client, arrival.kind)


async def _draw(client: httpx.AsyncClient, kind: Kind) -> Told:
    body = {
        "prompt": "a red circle on a blue background",
        "width": kind.side,
        "height": kind.side,
        "num_inference_steps": kind.steps,
    }
    answer = await client.post("/v1/generations", json=body)
    answer.raise_for_status()
    record = accepted = answer.json()
    wait = {"Prefer": f"wait={PATIENCE_SECONDS:g}"}
    while record["status"] in ("queued", "running"):
        record = (await client.get(accepted["urls"]["self"], headers=wait)).json()
    return Told(kind, accepted["eta_seconds"], record["metrics"]["total_seconds"])
