"""A lock around a pipeline: `python -m benchmarks.peers.lock_server FOLDER PORT`.

First come, first served, one at a time: the server that most people write first.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from benchmarks.peers.orders import Order
from benchmarks.peers.pipeline import Pipeline


def create_app(pipeline: Pipeline) -> FastAPI:
    """One endpoint."""
    app, lock = FastAPI(), asyncio.Lock()

    @app.post("/predict")
    async def predict(body: dict[str, Any]) -> Response:
        async with lock:
            (picture,) = await run_in_threadpool(pipeline.draw, [Order.read(body)])
        return Response(picture, media_type="image/png")

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Pipeline(Path(sys.argv[1]))), port=int(sys.argv[2]), log_level="error")
