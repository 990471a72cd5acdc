"""What `/metrics` of a running system says is what was sent to it and what it has done."""

from __future__ import annotations

import base64
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from benchmarks.sleeping import a_worker
from server.config import Settings
from server.exposition import Exposition
from server.forecast import Speed
from server.metrics import WorkerMetrics
from server.workers import ledger
from server.workers.simulated import SimulatedDenoiser, SimulatedState
from tests.api.house import gateway, wait_until
from tests.api.pictures import picture
from tests.redis_server import RedisServer
from tests.system.conftest import Served
from tests.system.scrapes import PROMPT, Visitor, of
from tests.system.test_serve import await_running, submit

LONG = {"prompt": PROMPT, "num_inference_steps": 150, "num_images": 2}
FULL_ROWS = 32
"""That share a step of the servers of these tests, at the demo checkpoint's own size."""
ROUNDED = 0.001
"""Seconds; ids tell when they were made by the millisecond."""
PHASES = ("queue", "encode", "denoise", "decode", "publish")


@pytest.fixture
def visitor(served: Served) -> Iterator[Visitor]:
    """Of a server that has nothing to do."""
    served.await_workers(1)
    with served.client() as client:
        wait_until(lambda: _idle(client), seconds=60)
        yield Visitor(client)


def _idle(client: httpx.Client) -> bool:
    queues = client.get("/v1/queue").json()["checkpoints"]
    return not any(queue["queued"] or queue["running"] for queue in queues)


def rows_of(record: Mapping[str, Any]) -> int:
    """Samples of all the UNet calls that it took part in."""
    return int(record["metrics"]["steps"]) * (2 if record["spec"]["guidance_scale"] > 1 else 1)


def test_counts_are_what_was_sent_and_what_was_drawn(visitor: Visitor) -> None:
    client, own = visitor.client, {"Idempotency-Key": uuid.uuid4().hex}
    sent = base64.b64encode(picture(128, 128)).decode()
    bodies: list[dict[str, Any]] = [
        {"num_inference_steps": 6},
        {"num_inference_steps": 4, "num_images": 2},
        {"num_inference_steps": 5, "guidance_scale": 1.0},
        {"num_inference_steps": 6, "task": "image-to-image", "image": sent, "strength": 0.5},
    ]
    locations = [submit(client, {"prompt": PROMPT} | body) for body in bodies]
    refused = client.post("/v1/generations", json={"prompt": PROMPT, "width": 1})
    assert refused.status_code == 422
    for _ in range(2):
        last = client.post("/v1/generations", json={"prompt": PROMPT}, headers=own)
    assert last.headers["idempotent-replayed"] == "true"
    records = [visitor.ended(where) for where in [*locations, last.headers["location"]]]
    assert client.get(f"{locations[1]}/images/1").status_code == 200
    assert client.get("/v1/generations/gen_" + 32 * "0").status_code == 404

    rows = sum(map(rows_of, records))
    visitor.expect(
        {
            of("generations_accepted_total", checkpoint="demo"): 5,
            of("generations_refused_total"): 1,
            of("generations_refused_total", code=refused.json()["code"]): 1,
            of("claims_total"): 5,
            of("generations_finished_total"): 5,
            of("generations_finished_total", state="succeeded"): 5,
            of("images_total"): 6,
            of("images_total", task="text-to-image", outcome="succeeded"): 5,
            of("images_total", task="image-to-image", outcome="succeeded"): 1,
            of("wasted_steps_total"): 0,
            of("step_rows_sum"): rows,
            of("step_rows_sum", size="128x128"): rows,
            of("step_occupancy_ratio_sum"): rows / FULL_ROWS,
            **{of("stage_seconds_count", phase=phase): 5 for phase in PHASES},
            **{
                of("stage_seconds_sum", phase=phase): sum(
                    record["metrics"][f"{phase}_seconds"] for record in records
                )
                for phase in PHASES
            },
        }
    )
    steps = visitor.grown(of("step_rows_count"))
    assert 0 < steps < sum(record["metrics"]["steps"] for record in records), "some were shared"
    assert visitor.grown(of("step_seconds_count")) == steps
    assert visitor.grown(of("step_occupancy_ratio_count")) == steps
    wait_until(visitor.told_of_all, seconds=60)


def test_a_prompt_that_comes_again_is_a_hit(visitor: Visitor) -> None:
    hits, misses = (of("cache_requests_total", cache="prompt", result=r) for r in ("hit", "miss"))
    visitor.draw(num_inference_steps=2)
    before = visitor.scrape()
    prompt = f"a green square {uuid.uuid4().hex}"
    visitor.draw(prompt=prompt, num_inference_steps=2)
    once = visitor.scrape()
    visitor.draw(prompt=prompt, num_inference_steps=2, seed=2)
    twice = visitor.scrape()
    assert once[misses] - before[misses] == 1
    assert twice[misses] - once[misses] == 0
    assert twice[hits] - once[hits] == once[hits] - before[hits] + 1


def test_what_was_drawn_of_a_canceled_generation_is_waste(visitor: Visitor) -> None:
    client, slow = visitor.client, LONG | {"width": 256, "height": 256}
    where = submit(client, slow)
    await_running(client, where)
    wait_until(lambda: client.get(where).json()["progress"]["steps_done"] >= 6, seconds=60)
    client.post(f"{where}/cancel")
    record = visitor.ended(where)
    assert record["status"] == "canceled"
    visitor.expect(
        {
            of("generations_finished_total", state="canceled"): 1,
            of("images_total", task="text-to-image", outcome="canceled"): 2,
            of("images_total"): 2,
            of("stage_seconds_count"): 0,
        }
    )
    wasted = visitor.grown(of("wasted_steps_total", reason="canceled"))
    assert record["progress"]["steps_done"] <= wasted < 300
    assert visitor.grown(of("wasted_steps_total")) == wasted
    assert visitor.grown(of("step_rows_sum")) == 2 * wasted, "all that was drawn meanwhile"


@contextmanager
def held(served: Served) -> Iterator[None]:
    """Meanwhile the worker does nothing, and has asked for nothing."""
    pid = served.pid("worker 1")
    redis = Redis.from_url((served.data_dir / "redis" / "url").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        # What Redis would give it now nobody could see in the queue.
        wait_until(lambda: redis.info("clients")["blocked_clients"] == 0, seconds=60)  # type: ignore[index]
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        redis.close()


def test_what_waits_is_told_as_long_as_it_waits(visitor: Visitor, served: Served) -> None:
    depth, work, oldest, ready = (
        of(name, checkpoint="demo")
        for name in ("queue_depth", "queued_work_seconds", "queue_oldest_seconds", "workers")
    )
    idle = visitor.scrape()
    assert [idle[each] for each in (depth, work, oldest, ready)] == [0, 0, 0, 1]
    with held(served):
        asked_at = time.time()
        locations = [submit(visitor.client, {"prompt": PROMPT, "num_inference_steps": 5})]
        accepted_at = time.time()
        one = visitor.scrape()
        locations += [submit(visitor.client, LONG) for _ in range(3)]
        four = visitor.scrape()
        assert (one[depth], four[depth]) == (1, 4)
        assert 0 < one[work] < four[work]
        wait_until(lambda: visitor.scrape()[oldest] > four[oldest] > 0, seconds=60)
        began = time.time()
        age = visitor.scrape()[oldest]
        assert began - accepted_at - ROUNDED <= age <= time.time() - asked_at + ROUNDED
        wait_until(lambda: visitor.scrape()[ready] == 0, seconds=60)
        assert visitor.scrape()[of("process_up", process="worker 1")] == 0
    for where in locations:
        visitor.client.post(f"{where}/cancel")
    wait_until(
        lambda: [visitor.scrape()[each] for each in (depth, work, oldest)] == [0, 0, 0], seconds=60
    )
    wait_until(lambda: visitor.scrape()[ready] == 1, seconds=60)


def test_what_a_killed_worker_held_is_counted_as_taken_over(
    visitor: Visitor, served: Served
) -> None:
    body = LONG | {"num_images": 1}
    locations = [submit(visitor.client, body | {"seed": seed}) for seed in range(3)]
    for where in locations:
        await_running(visitor.client, where)
    served.kill("worker 1")
    records = [visitor.ended(where) for where in locations]
    assert {record["status"] for record in records} == {"succeeded"}
    new = of("takeovers_total", process="worker 1"), of("claims_total", process="worker 1")
    wait_until(lambda: [visitor.scrape()[each] for each in new] == [3, 3], seconds=60)


class Faulty(SimulatedDenoiser):
    """Fails of itself at the fourth step that it ever takes."""

    steps = 0

    def advance(self, state: SimulatedState, prediction: int) -> None:
        type(self).steps += 1
        if self.steps == 4:
            raise RuntimeError("a fault of ours")
        super().advance(state, prediction)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """Of a gateway, with a worker that has a fault."""
    from server.workers.main import Counting  # torch comes with it

    monkeypatch.setattr(ledger, "RETRY_SECONDS", (0.05,))
    monkeypatch.setattr(Faulty, "steps", 0)
    server = RedisServer()
    server.start()
    registry, speed = (
        CollectorRegistry(),
        Speed(native_pixels=128**2, curve=((2, 0.01),), full_rows=2),
    )
    metrics = WorkerMetrics(registry)
    settings = Settings(redis=server.url, data_dir=tmp_path)
    worker = a_worker(settings, "demo", Faulty(), speed, metrics, Counting(metrics))
    thread = threading.Thread(target=worker.work)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as sockets:
        shown = Exposition(registry, Path(sockets) / "worker 1.sock")
        shown.start()
        thread.start()
        own = Path(sockets) / "gateway.sock"
        with gateway(server.url, tmp_path, metrics_socket=own, min_free_bytes=0) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200, seconds=60)
            yield client
        worker.request_stop()
        thread.join(20)
        shown.stop()
    server.close()


def test_what_is_tried_again_after_a_fault_is_counted_so(faulty: httpx.Client) -> None:
    visitor = Visitor(faulty)
    record = visitor.draw(num_inference_steps=9)
    assert record["status"] == "succeeded"
    visitor.expect(
        {
            of("retries_total"): 1,
            of("claims_total"): 2,
            of("wasted_steps_total", reason="failed"): 3,
            of("generations_finished_total"): 1,
            of("generations_failed_total"): 0,
            of("images_total"): 1,
            of("images_total", task="text-to-image", outcome="succeeded"): 1,
            of("step_rows_sum"): rows_of(record) + 2 * 4,
        }
    )


def test_what_is_not_tried_again_has_failed(
    faulty: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "RETRY_SECONDS", ())
    visitor = Visitor(faulty)
    assert visitor.draw(num_inference_steps=9)["status"] == "failed"
    visitor.expect(
        {
            of("retries_total"): 0,
            of("claims_total"): 1,
            of("wasted_steps_total"): 3,
            of("generations_finished_total", state="failed"): 1,
            of("generations_failed_total", code="generation_failed"): 1,
            of("generations_failed_total"): 1,
            of("images_total", task="text-to-image", outcome="failed"): 1,
        }
    )
