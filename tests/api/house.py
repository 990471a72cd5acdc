"""A real gateway on a real Redis, and somebody who plays the worker's part."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import obstore
from obstore.store import LocalStore
from redis import Redis

from server.api.app import make_server
from server.broker import WorkerInfo, accounts, delivery, keys, previews
from server.catalog import load_catalog
from server.config import Settings
from server.forecast import Speed
from server.listener import listen, listen_aside
from server.spec import Failure, GenerationState, ImageInfo, Metrics, Progress, Warn

RETENTION = 600

SPEED = Speed(native_pixels=128 * 128, curve=((2, 0.1),), full_rows=2)
"""A step of a guided picture of the demo checkpoint takes 0.1 s, and no two share one."""


@contextmanager
def gateway(redis_url: str, folder: Path, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a gateway that runs until the block ends."""
    made = {"redis": redis_url, "data_dir": folder, "port": 0, "max_wait_seconds": 5.0}
    given = Settings(**(made | settings))
    server = make_server(given, load_catalog(settings.get("catalog")))
    listeners = [listen("127.0.0.1", 0), *([listen_aside(given)] if given.metrics_port else [])]
    thread = threading.Thread(target=server.run, args=(listeners,))
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = listeners[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive(), "the gateway did not end"


def wait_until(true: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Hands:
    """Plays the worker: the same writes, without RQ and without a model."""

    def __init__(self, redis: Redis, folder: Path) -> None:
        self.redis = redis
        self.images = folder / "images"

    def serve(self, checkpoint: str = "demo", **changes: Any) -> None:
        """Let a worker of the checkpoint be seen."""
        said = {
            "name": "hands",
            "checkpoint": checkpoint,
            "device": "cpu",
            "state": "ready",
            "capacity": 4,
            "in_flight": 0,
            "speed": SPEED,
        }
        with self.redis.pipeline() as pipe:
            worker = WorkerInfo(**(said | changes))
            delivery.alive(pipe, worker, ttl_ms=60_000, served_seconds=60)
            pipe.execute()

    def _owner(self, id: str) -> str:
        owner: Any = self.redis.hget(keys.generation(id), "owner") or b""
        return str(owner.decode())

    def begin(self, id: str) -> None:
        with self.redis.pipeline() as pipe:
            pipe.lrem("rq:queue:demo", 1, id)
            delivery.started(pipe, id, at=time.time())
            pipe.execute()

    def progress(self, id: str, done: int, total: int = 4) -> None:
        event = delivery.progress_event(Progress(steps_done=done, steps_total=total))
        with self.redis.pipeline() as pipe:
            pipe.hset(keys.generation(id), mapping={"steps_done": done, "steps_total": total})
            pipe.xadd(keys.events(id), {"event": "progress", "data": event})
            pipe.publish(keys.CHANGES, f"{id} progress")
            pipe.execute()

    def show(self, id: str, picture: bytes, *, index: int = 0, number: int = 1) -> bool:
        """Show what is drawn so far, as the holder of the job."""
        self.redis.hset(f"rq:job:{id}", mapping={"status": "started", keys.HOLDER: "e1"})
        return previews.show(self.redis, id, "e1", picture, index=index, number=number)

    def succeed(
        self, id: str, *pictures: bytes, steps: int = 4, warnings: Sequence[Warn] = (), **about: Any
    ) -> list[str]:
        """Store the pictures and end it; returns their keys. `about` is said of the last one."""
        images = [self._store(id, i, data) for i, data in enumerate(pictures or (b"PNG",))]
        images[-1] = images[-1].model_copy(update=about)
        metrics = Metrics(
            queue_seconds=0.1,
            encode_seconds=0.1,
            denoise_seconds=0.1,
            decode_seconds=0.1,
            publish_seconds=0.1,
            total_seconds=0.5,
            steps=steps,
            mean_batch_rows=2.0,
            peak_memory_bytes=1,
            worker="hands",
        )
        with self.redis.pipeline() as pipe:
            delivery.succeeded(
                pipe,
                id,
                owner=self._owner(id),
                at=time.time(),
                retention=RETENTION,
                images=images,
                metrics=metrics,
                warnings=warnings,
            )
            pipe.execute()
        return [image.key for image in images]

    def end(self, id: str, state: GenerationState, code: str = "", message: str = "") -> None:
        error = Failure(code=code, message=message) if code else None
        with self.redis.pipeline() as pipe:
            owner, at = self._owner(id), time.time()
            delivery.ended(pipe, id, state, owner=owner, at=at, retention=RETENTION, error=error)
            pipe.execute()

    def queued(self, checkpoint: str = "demo") -> int:
        """How many deliveries wait in RQ's queue."""
        return int(self.redis.llen(f"rq:queue:{checkpoint}"))  # type: ignore[arg-type]

    def kept(self) -> list[str]:
        """Names of what lies in the image store."""
        return sorted(path.name for path in self.images.rglob("*") if path.is_file())

    def _store(self, id: str, index: int, data: bytes) -> ImageInfo:
        key = f"{id}/{index}-e1.png"
        obstore.put(LocalStore(self.images.resolve(), mkdir=True), key, data)
        sha256 = hashlib.sha256(data).hexdigest()
        return ImageInfo(key=key, seed=7 + index, width=128, height=128, sha256=sha256)


@contextmanager
def soon(*actions: Any, after: float = 0.15) -> Iterator[None]:
    """Do it in a moment, on another thread."""
    timers = [threading.Timer(after * (i + 1), action) for i, action in enumerate(actions)]
    for timer in timers:
        timer.start()
    yield
    for timer in timers:
        timer.join()


def key_of(redis: Redis, name: str = "somebody", **terms: Any) -> str:
    """A new API key; the first one locks the house."""
    _, key, _ = accounts.create(redis, name, **({"scopes": ("generate",)} | terms))
    return key


def bearer(key: str) -> dict[str, str]:
    """How a key is sent."""
    return {"Authorization": f"Bearer {key}"}
