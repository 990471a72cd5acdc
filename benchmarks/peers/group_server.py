"""Request-level batching: `python -m benchmarks.peers.group_server FOLDER PORT MOST`.

Whoever has waited longest is drawn next, in one pipeline call with those in the line that can share
it. A batch that is not full waits a moment for more.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from benchmarks.peers.orders import Order
from benchmarks.peers.pipeline import Pipeline

WAIT_SECONDS = 0.05
LOOK_SECONDS = 0.005


@dataclass(eq=False, slots=True)
class Waiting:
    """An order, since when it waits, and where its picture goes."""

    order: Order
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    picture: asyncio.Future[bytes] = field(default_factory=asyncio.Future)


class Batcher:
    """Draws what is in the line, batch by batch."""

    def __init__(self, pipeline: Pipeline, most: int) -> None:
        self._pipeline = pipeline
        self._most = most
        self._line: list[Waiting] = []
        self._comes = asyncio.Event()

    async def draw(self, order: Order) -> bytes:
        """Its picture, when it is there."""
        waiting = Waiting(order)
        self._line.append(waiting)
        self._comes.set()
        return await waiting.picture

    async def run(self) -> None:
        """Until it is canceled."""
        while True:
            self._comes.clear()
            if not self._line:
                await self._comes.wait()
            batch = await self._batch()
            for waiting in batch:
                self._line.remove(waiting)
            await self._draw(batch)

    async def _batch(self) -> list[Waiting]:
        first = self._line[0]
        while True:
            alike = [each for each in self._line if each.order.kind == first.order.kind]
            waited = asyncio.get_running_loop().time() - first.since
            if len(alike) >= self._most or waited >= WAIT_SECONDS:
                return alike[: self._most]
            await asyncio.sleep(LOOK_SECONDS)

    async def _draw(self, batch: list[Waiting]) -> None:
        try:
            orders = [waiting.order for waiting in batch]
            pictures = await run_in_threadpool(self._pipeline.draw, orders)
        except Exception as error:
            for waiting in batch:
                waiting.picture.set_exception(error)
        else:
            for waiting, picture in zip(batch, pictures, strict=True):
                waiting.picture.set_result(picture)


def create_app(pipeline: Pipeline, most: int) -> FastAPI:
    """One endpoint."""
    batchers: list[Batcher] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batchers.append(Batcher(pipeline, most))
        running = asyncio.create_task(batchers[0].run())
        yield
        running.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(body: dict[str, Any]) -> Response:
        return Response(await batchers[0].draw(Order.read(body)), media_type="image/png")

    return app


if __name__ == "__main__":
    app = create_app(Pipeline(Path(sys.argv[1])), int(sys.argv[3]))
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
