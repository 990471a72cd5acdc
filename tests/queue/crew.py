"""Builders for queue tests: settings with short times, generations, workers, and patience."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.registry import (
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    StartedJobRegistry,
)
from rq.serializers import JSONSerializer

from server.broker import keys, line, submit
from server.broker.record import Generation
from server.config import Settings
from server.forecast import Demand
from server.spec import AnySpec, new_generation_id
from server.tracing import SILENT, Tracer
from server.workers.link import connect
from server.workers.worker import BatchWorker
from tests.builders import a_spec
from tests.queue.scripted import ScriptedStudio

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ("demo", "refiner", "upscaler")
LEASE_SECONDS = 0.6


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The first true value of `condition`; an AssertionError if none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def short(url: str, **changes: Any) -> Settings:
    """Settings whose times are short."""
    times = {"lease_seconds": LEASE_SECONDS, "beat_seconds": 0.05, "drain_seconds": 10.0}
    return Settings(**({"redis": url, "retention_seconds": 600} | times | changes))


class Counts(Counter[str]):
    """An observer that counts."""

    def claimed(self) -> None:
        self["claimed"] += 1

    def finished(self, state: str, spec: AnySpec | None = None, code: str = "") -> None:
        self[state] += 1

    def lost(self) -> None:
        self["lost"] += 1

    def taken_over(self) -> None:
        self["taken over"] += 1

    def retried(self) -> None:
        self["retried"] += 1

    def quarantined(self) -> None:
        self["quarantined"] += 1

    def beat(self, seconds: float) -> None:
        """That is nothing to count."""


class Desk:
    """The client's side of the queue, and what RQ says of it."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis
        self.queues = {
            name: Queue(name, connection=redis, serializer=JSONSerializer) for name in CHECKPOINTS
        }
        self.queue = self.queues["demo"]
        for name in CHECKPOINTS:
            redis.set(keys.served(name), "test")

    def next(self, checkpoint: str) -> str:
        """Pop whoever is next in the queue of a checkpoint."""
        queue = self.queues[checkpoint]
        names = queue.key, queue.intermediate_queue_key
        found: Any = self.redis.eval(line.NEXT, 2, *names, keys.line(checkpoint))
        return str(found.decode())

    def submit(
        self, *, created_at: float | None = None, traceparent: str = "", **changes: Any
    ) -> str:
        """Queue a generation through the real script."""
        generation = Generation(
            id=new_generation_id(),
            owner="tester",
            spec=a_spec(**changes),
            created_at=time.time() if created_at is None else created_at,
            traceparent=traceparent,
        )
        names, values = submit.arguments(
            generation,
            self.redis,
            demand=Demand(),
            terms=submit.Terms(),
            retention=600,
            idempotency=None,
        )
        accepted, id, *_ = self.redis.eval(submit.SCRIPT, len(names), *names, *values)
        assert accepted == b"accepted"
        return str(id.decode())

    def record(self, id: str) -> Generation:
        return Generation.from_hash(self.redis.hgetall(keys.generation(id)))

    def status(self, id: str) -> str:
        return self.record(id).status.value

    def job(self, id: str) -> Job:
        return Job.fetch(id, connection=self.redis, serializer=JSONSerializer)

    def events(self, id: str) -> list[tuple[str, dict[str, Any]]]:
        entries = self.redis.xrange(keys.events(id))
        return [(e[b"event"].decode(), json.loads(e[b"data"])) for _, e in entries]

    def states(self, id: str) -> list[str]:
        return [data["status"] for event, data in self.events(id) if event == "state"]

    def registries(self, checkpoint: str = "demo") -> dict[str, list[str]]:
        """What each of RQ's lists holds, read as rq-dashboard reads it."""
        registries = {
            "started": StartedJobRegistry,
            "finished": FinishedJobRegistry,
            "failed": FailedJobRegistry,
            "canceled": CanceledJobRegistry,
        }
        queue = self.queues[checkpoint]
        return {name: kind(queue=queue).get_job_ids() for name, kind in registries.items()}

    def intermediate(self, checkpoint: str = "demo") -> list[str]:
        found = self.redis.lrange(self.queues[checkpoint].intermediate_queue_key, 0, -1)
        return [id.decode() for id in found]

    def all_ended(self, ids: list[str], state: str = "succeeded") -> bool:
        return all(self.status(id) == state for id in ids)

    def assert_clean(self) -> None:
        """Nothing is left of what has ended: no lease, no execution, no id in a list."""
        for checkpoint, queue in self.queues.items():
            assert self.registries(checkpoint)["started"] == []
            assert self.intermediate(checkpoint) == []
            assert queue.get_job_ids() == []
            assert queue.scheduled_job_registry.get_job_ids() == []
            assert self.redis.hlen(f"{keys.line(checkpoint)}:owners") == 0
        assert list(self.redis.scan_iter("darkroom:line:*:of:*")) == []
        assert list(self.redis.scan_iter("darkroom:living:*")) == []
        assert list(self.redis.scan_iter("darkroom:lease:*")) == []
        assert list(self.redis.scan_iter("rq:execution*")) == []


class ThreadWorker(BatchWorker):
    """A worker on a thread: its studio, counts and end are at hand."""

    def __init__(
        self,
        settings: Settings,
        studio: Any,
        redis: Redis,
        checkpoint: str = "demo",
        tracer: Tracer = SILENT,
    ) -> None:
        self.studio, self.counts = studio, Counts()
        self.reason = ""
        super().__init__(
            settings,
            checkpoint,
            studio,
            redis=redis,
            name=f"thread-{uuid.uuid4().hex[:6]}",
            device="cpu",
            observer=self.counts,
            tracer=tracer,
        )
        self.thread = threading.Thread(target=self.work, daemon=True)

    def _give_up(self, reason: str) -> None:
        """Instead of ending the test's process."""
        self.reason = reason
        self.request_stop()

    def stop(self) -> None:
        """Twice, so that nothing is waited for."""
        self.request_stop()
        self.request_stop()
        self.thread.join(timeout=10)
        assert not self.thread.is_alive()


class Crew:
    """Hires workers for a test and sends them home after it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._threads: list[ThreadWorker] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def thread(
        self,
        studio: Any | None = None,
        *,
        checkpoint: str = "demo",
        tracer: Tracer = SILENT,
        **changes: Any,
    ) -> ThreadWorker:
        """A worker in this process."""
        settings, studio = short(self.url, **changes), studio or ScriptedStudio()
        worker = ThreadWorker(settings, studio, connect(settings.redis), checkpoint, tracer)
        worker.thread.start()
        self._threads.append(worker)
        return worker

    def process(
        self,
        *,
        checkpoint: str = "demo",
        studio: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
        dies: str = "",
        **changes: Any,
    ) -> subprocess.Popen[bytes]:
        """A worker in a process that can be killed."""
        settings = short(self.url, **changes).model_dump(mode="json", exclude_defaults=True)
        options = {
            "settings": settings,
            "checkpoint": checkpoint,
            "dies": dies,
            "studio": studio or {},
            "state": state or {},
            "name": f"process-{uuid.uuid4().hex[:6]}",
        }
        command = [sys.executable, "-m", "tests.queue.process", json.dumps(options)]
        process = subprocess.Popen(command, cwd=ROOT)
        self._processes.append(process)
        return process

    def home(self) -> None:
        for worker in self._threads:
            worker.stop()
        for process in self._processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
