"""The gateway under load: one gateway process, real Redis, real queue, workers without a model.

    python -m benchmarks load

This process is the load; it shares the machine's cores with what it measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from benchmarks.timing import Figure, at_most
from server.broker import accounts
from server.embedded import EmbeddedRedis
from server.listener import listen, url_of
from server.supervisor import command, ready_workers
from server.tied import tied

STEPS = 10
QUICK_MILLISECONDS, SLOW_MILLISECONDS = 20, 100
"""Of a step of a simulated worker."""
CAPACITY = 8
RATE = CAPACITY / (STEPS * SLOW_MILLISECONDS / 1000)
"""Generations a second of a slow one."""
BODY = {
    "prompt": "a red circle on a blue background",
    "num_inference_steps": STEPS,
    "sampler": "ddim",
}
WAITING, STREAMS = 1000, 200
ACCEPT_RATE, ACCEPT_SECONDS = 200, 20
OVERLOAD, OVERLOAD_SECONDS = 3.0, 120.0
BOUND_SECONDS = 10.0
PATIENCE_SECONDS = 120.0
OWNERS = ("greedy", "small")
GENERATES = (accounts.Scope.GENERATE,)
GREEDY, SMALL = 300, 25


@dataclass(slots=True)
class House:
    """What runs, and where."""

    url: str
    redis: str
    gateway: int
    """Its process id."""

    def resident_bytes(self) -> int:
        """The most memory that the gateway's process ever had."""
        status = Path(f"/proc/{self.gateway}/status").read_text()
        match = re.search(r"VmHWM:\s*(\d+) kB", status)
        return 1024 * int(match[1]) if match else 0


@contextlib.contextmanager
def house(
    milliseconds: float = QUICK_MILLISECONDS,
    workers: int = 1,
    each_row: float = 0.0,
    decode: float | None = None,
    **settings: Any,
) -> Iterator[House]:
    """A Redis, one gateway, and simulated workers of the demo checkpoint, whose step takes so long,
    and longer by so many milliseconds for each row. Where `decode` says how many of them a decode
    takes, both go by the pixels."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        redis = EmbeddedRedis(Path(folder))
        redis.start()
        stack.callback(redis.stop)
        said = {"redis": redis.url, "data_dir": folder, "capacity": CAPACITY, "log_level": "error"}
        env = {f"DARKROOM_{name.upper()}": str(value) for name, value in (said | settings).items()}
        listener = stack.enter_context(listen("127.0.0.1", 0))
        fd = listener.fileno()
        gateway = _started(stack, env, command("gateway", "--fd", str(fd)), fd)
        drawing = [sys.executable, "-m", "benchmarks.simulator", "demo"]
        drawing += [str(milliseconds), str(each_row), *([] if decode is None else [str(decode)])]
        for _ in range(workers):
            _started(stack, env, drawing)
        url = url_of(listener)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ready_workers(url) < workers:
            if time.monotonic() > deadline:
                raise TimeoutError("the workers did not come up")
            time.sleep(0.1)
        yield House(url, redis.url, gateway.pid)


def _started(
    stack: contextlib.ExitStack, env: dict[str, str], words: list[str], *fds: int
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(tied(*words), env=os.environ | env, pass_fds=fds)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


@contextlib.asynccontextmanager
async def client_of(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """As many connections as it takes."""
    # Shorter than the gateway's own patience with idle ones, so that both never meet.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=2000, keepalive_expiry=2)
    async with httpx.AsyncClient(
        base_url=house.url, limits=limits, timeout=PATIENCE_SECONDS, trust_env=False
    ) as client:
        yield client


async def crowd(house: House) -> tuple[int, int]:
    """A thousand clients that wait and two hundred that watch, all at once; how many of each got
    what they came for."""
    async with client_of(house) as client:

        async def wait(number: int) -> bool:
            answer = await client.post(
                "/v1/generations",
                json=BODY | {"seed": number},
                headers={"Prefer": f"wait={PATIENCE_SECONDS:g}"},
            )
            return answer.status_code == 200 and answer.json()["status"] == "succeeded"

        async def watch(number: int) -> bool:
            made = (await client.post("/v1/generations", json=BODY | {"seed": number})).json()
            async with client.stream("GET", made["urls"]["events"]) as stream:
                return any([line == "event: done" async for line in stream.aiter_lines()])

        waiting = [wait(number) for number in range(WAITING)]
        watching = [watch(WAITING + number) for number in range(STREAMS)]
        done = await asyncio.gather(*waiting, *watching)
    return sum(done[:WAITING]), sum(done[WAITING:])


def crowd_figures() -> Iterator[Figure]:
    """(f) and (g)."""
    with house(workers=2, max_queued=2 * WAITING) as here:
        waited, watched = asyncio.run(crowd(here))
        megabytes = here.resident_bytes() / 2**20
    missing = WAITING + STREAMS - waited - watched
    detail = f"{waited} of {WAITING} clients that wait, {watched} of {STREAMS} streams"
    yield at_most("(f) clients without an answer", missing, 0, "", detail)
    yield at_most("(g) memory of the gateway with all of them", megabytes, 400, "MB")


async def accepting(house: House) -> list[float]:
    """Seconds of each POST, sent at a steady rate whatever the answers take."""
    async with client_of(house) as client:

        async def submit(number: int) -> float:
            await asyncio.sleep(number / ACCEPT_RATE)
            began = time.perf_counter()
            answer = await client.post("/v1/generations", json=BODY | {"seed": number})
            answer.raise_for_status()
            return time.perf_counter() - began

        await asyncio.gather(*(submit(number) for number in range(ACCEPT_RATE)))  # warm
        return await asyncio.gather(
            *(submit(number) for number in range(ACCEPT_RATE * ACCEPT_SECONDS))
        )


def accept_figure() -> Figure:
    """(h)."""
    most = 2 * ACCEPT_RATE * ACCEPT_SECONDS
    with house(SLOW_MILLISECONDS, max_queued=most, max_queued_seconds=1e6) as here:
        seconds = asyncio.run(accepting(here))
    p50, p95 = (1000 * statistics.quantiles(seconds, n=20)[at] for at in (9, 18))
    detail = f"{len(seconds)} POSTs at {ACCEPT_RATE}/s, p50 {p50:.1f} ms, with a worker drawing"
    return at_most("(h) time to accept a POST, p95", p95, 50, "ms", detail)


@dataclass(slots=True)
class Flood:
    """What came of a load that is more than can be drawn."""

    began: float = field(default_factory=time.monotonic)
    waits: list[float] = field(default_factory=list)
    """Seconds in the queue, of those that were drawn."""
    told: list[tuple[float, float]] = field(default_factory=list)
    """Of each refusal: seconds it was told to wait, and seconds until it was accepted."""
    etas: list[tuple[float, float]] = field(default_factory=list)
    """Seconds predicted when it was accepted, and seconds that it took."""
    refused: int = 0
    longest: int = 0
    """Generations in the queue, at most."""


async def flood(house: House, seconds: float) -> Flood:
    """Three times as many clients as can be served, each of which comes back when it is told to."""
    flood = Flood()
    async with client_of(house) as client:
        watching = asyncio.create_task(_watch(client, flood))
        count = int(OVERLOAD * RATE * seconds)
        await asyncio.gather(
            *(
                _persist(client, flood, number, number / (OVERLOAD * RATE))
                for number in range(count)
            )
        )
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    return flood


async def _persist(client: httpx.AsyncClient, flood: Flood, number: int, at: float) -> None:
    await asyncio.sleep(at)
    first = told = 0.0
    while True:
        answer = await client.post("/v1/generations", json=BODY | {"seed": number})
        if answer.status_code == 202:
            break
        flood.refused += 1
        wait = float(answer.headers["retry-after"])
        if not first:
            first, told = time.monotonic(), wait
        await asyncio.sleep(wait)
    accepted = time.monotonic()
    if first:
        flood.told.append((told, accepted - first))
    record = answer.json()
    ended = await client.get(
        record["urls"]["self"], headers={"Prefer": f"wait={PATIENCE_SECONDS:g}"}
    )
    while ended.json()["status"] in ("queued", "running"):
        await asyncio.sleep(0.25)
        ended = await client.get(record["urls"]["self"])
    flood.waits.append(ended.json()["metrics"]["queue_seconds"])
    taken = ended.json()["metrics"]["total_seconds"]
    flood.etas.append((record["eta_seconds"], taken))


async def _watch(client: httpx.AsyncClient, flood: Flood) -> None:
    while True:
        queues = (await client.get("/v1/queue")).json()["checkpoints"]
        flood.longest = max(flood.longest, *(queue["queued"] for queue in queues))
        await asyncio.sleep(0.5)


def flood_figures(seconds: float = OVERLOAD_SECONDS) -> Iterator[Figure]:
    """(i) to (l)."""
    with house(SLOW_MILLISECONDS, max_queued_seconds=BOUND_SECONDS) as here:
        found = asyncio.run(flood(here, seconds))
    p95 = _p95(found.waits)
    detail = (
        f"{len(found.waits)} clients at {OVERLOAD:g} times the rate for {seconds:g} s, "
        f"{found.refused} refusals, {found.longest} in the queue at most"
    )
    yield at_most("(i) wait in a full queue, p95", p95, 1.1 * BOUND_SECONDS, "s", detail)
    off = [abs(took - told) / told for told, took in found.told]
    early = sum(took > 1.3 * told for told, took in found.told)
    detail = f"of {len(off)} refused clients; {early} were refused again when they came back"
    yield at_most("(j) error of Retry-After, p90", 100 * _p90(off), 30, "%", detail)
    wrong = [abs(took - told) / took for told, took in found.etas if told]
    yield at_most("(k) error of eta_seconds, median", 100 * statistics.median(wrong), 25, "%")
    yield at_most("(l) error of eta_seconds, p90", 100 * _p90(wrong), 25, "%")


async def beside(house: House, keys: dict[str, str], greedy: int) -> list[float]:
    """Seconds of each generation of a small key, one after the other, while a greedy one has so
    many in the queue."""
    seconds = []
    async with client_of(house) as client:

        async def submit(name: str, number: int, **headers: str) -> httpx.Response:
            key = {"Authorization": f"Bearer {keys[name]}"}
            body = BODY | {"seed": number}
            return await client.post("/v1/generations", json=body, headers=key | headers)

        await asyncio.gather(*(submit("greedy", number) for number in range(greedy)))
        for number in range(SMALL):
            began = time.perf_counter()
            answer = await submit("small", number, Prefer=f"wait={PATIENCE_SECONDS:g}")
            answer.raise_for_status()
            seconds.append(time.perf_counter() - began)
    return seconds


def fairness_figure() -> Figure:
    """(m)."""
    with house(SLOW_MILLISECONDS) as here:
        with Redis.from_url(here.redis) as redis:
            keys = {name: accounts.create(redis, name, scopes=GENERATES)[1] for name in OWNERS}
        time.sleep(2 * accounts.LOOK_SECONDS)  # until the gateway has seen that it is locked
        alone = _p95(asyncio.run(beside(here, keys, greedy=0)))
        crowded = _p95(asyncio.run(beside(here, keys, greedy=GREEDY)))
    detail = f"{crowded:.2f} s beside {GREEDY} queued by another key, {alone:.2f} s alone"
    return at_most(
        "(m) a small key beside a greedy one, p95 over alone", crowded / alone, 2.0, "x", detail
    )


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[18]


def _p90(values: list[float]) -> float:
    return statistics.quantiles(values, n=10)[8] if len(values) > 1 else sum(values)


def figures() -> Iterator[Figure]:
    """All of them; takes about seven minutes."""
    yield from crowd_figures()
    yield accept_figure()
    yield fairness_figure()
    yield from flood_figures()
