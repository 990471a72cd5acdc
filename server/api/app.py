"""The gateway as one application, made from its parts. Importing this module does nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from server import __version__
from server.api import (
    capabilities,
    events,
    generations,
    health,
    images,
    openapi,
    submission,
    system,
)
from server.api.deps import Gateway
from server.api.handlers import add_handlers
from server.api.middleware import BodyLimit, Boundary
from server.api.tokenizers import Tokenizers
from server.api.uploads import DECODERS
from server.broker import Broker
from server.catalog import Catalog
from server.config import Settings
from server.metrics import GatewayMetrics
from server.storage import ImageStore, open_store

ROUTERS = (
    submission.router,
    generations.router,
    events.router,
    images.router,
    system.router,
    capabilities.router,
    health.router,
)


def create_app(
    broker: Broker,
    catalog: Catalog,
    store: ImageStore,
    registry: CollectorRegistry,
    *,
    max_body_bytes: int,
    max_wait_seconds: float,
    default_checkpoint: str = "",
    models: Path | None = None,
) -> FastAPI:
    """All the gateway needs comes in as arguments; its lifespan starts and closes the broker."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await broker.start()
        yield
        await broker.close()

    metrics = GatewayMetrics(registry)
    app = openapi.DocumentedApp(
        title="Darkroom",
        version=__version__,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.gateway = Gateway(
        broker=broker,
        catalog=catalog,
        store=store,
        tokenizers=Tokenizers(),
        metrics=metrics,
        max_body_bytes=max_body_bytes,
        max_wait_seconds=max_wait_seconds,
        default_checkpoint=catalog[default_checkpoint or next(iter(catalog))].name,
        models=models,
        decoders=asyncio.Semaphore(DECODERS),
        looks={},
    )
    for router in ROUTERS:
        # Not `include_router`: that looks a route up twice, at each request.
        app.router.routes.extend(router.routes)
    add_handlers(app)
    app.add_middleware(BodyLimit, max_body_bytes=max_body_bytes)
    app.add_middleware(Boundary, metrics=metrics)
    return app


def make_server(settings: Settings, catalog: Catalog) -> uvicorn.Server:
    """A gateway ready to run where the settings say."""
    store = open_store(settings.storage, settings.data_dir)
    broker = Broker(
        settings.redis,
        max_queued=settings.max_queued,
        retention_seconds=settings.retention_seconds,
        discard=store.delete,
    )
    app = create_app(
        broker,
        catalog,
        store,
        CollectorRegistry(),
        max_body_bytes=settings.max_body_bytes,
        max_wait_seconds=settings.max_wait_seconds,
        default_checkpoint=settings.default_checkpoint,
        models=settings.models_dir,
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    return ReleasingServer(config, broker)


class ReleasingServer(uvicorn.Server):
    """Ends waits and event streams before it waits for its connections; they would never end."""

    def __init__(self, config: uvicorn.Config, broker: Broker) -> None:
        super().__init__(config)
        self._broker = broker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of who waits, then close as usual."""
        self._broker.hub.release()
        await super().shutdown(sockets)
