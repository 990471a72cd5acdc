"""The gateway as one application, made from its parts. Importing this module does nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
    pages,
    previews,
    replays,
    submission,
    system,
    usage,
    visits,
)
from server.api.a1111 import (
    absent,
    drawing,
    extras,
    following,
    lists,
    options,
    pnginfo,
)
from server.api.arrival import BodyLimit
from server.api.auth import Doorkeeper, guarded
from server.api.connections import connections
from server.api.deps import Gateway
from server.api.handlers import add_handlers
from server.api.middleware import Boundary, OwnSite
from server.api.openai import images as openai_images
from server.api.openai import models as openai_models
from server.api.openai.names import aliases_of
from server.api.outlook import Outlook
from server.api.reference import add_reference
from server.api.sideport import SidePort
from server.api.space import Space
from server.api.streams import Streams
from server.api.tokenizers import Tokenizers
from server.api.uploads import DECODERS
from server.api.webhooks import routes as webhooks
from server.api.webhooks.deliverer import Deliverer
from server.api.webhooks.guard import Guard
from server.api.webhooks.messenger import Messenger
from server.broker import Broker
from server.catalog import Catalog
from server.config import Settings
from server.exposition import Exposition
from server.janitor import Janitor
from server.listener import is_private
from server.metrics import GatewayMetrics
from server.storage import ImageStore, open_store
from server.tracing import SILENT, Tracer

ROUTERS = (
    submission.router,
    generations.router,
    events.router,
    images.router,
    replays.router,
    webhooks.router,
    previews.router,
    system.router,
    usage.router,
    capabilities.router,
    openai_images.router,
    openai_models.router,
    drawing.router,
    following.router,
    following.internal,
    options.router,
    lists.router,
    extras.router,
    pnginfo.router,
    absent.router,
    health.router,
    pages.router,
)


def create_app(
    settings: Settings,
    catalog: Catalog,
    broker: Broker,
    store: ImageStore,
    tracer: Tracer = SILENT,
) -> FastAPI:
    """The application; its lifespan starts and closes the broker, and closes the tracer."""
    metrics = GatewayMetrics(CollectorRegistry())
    store.on_failure(metrics.store_errors_total.inc)
    messenger = messenger_of(settings)
    gateway = gateway_of(settings, catalog, broker, store, messenger, metrics, tracer)
    janitor = Janitor(broker, store, metrics, sweep_seconds=settings.sweep_seconds)
    deliverer = None if messenger is None else Deliverer(broker, messenger, metrics, tracer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await broker.start()
        gateway.exposition.start()
        janitor.start()
        if deliverer is not None:
            deliverer.start()
        yield
        await janitor.stop()
        if deliverer is not None:
            await deliverer.stop()
        for task in gateway.tasks:
            task.cancel()
        gateway.exposition.stop()
        await broker.close()
        await asyncio.to_thread(tracer.close)

    app = openapi.DocumentedApp(
        title="Darkroom",
        version=__version__,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asked at each request
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.gateway = gateway
    keeper = Doorkeeper(broker.accounts, broker.rates)
    for router in ROUTERS:
        # Not `include_router`: that looks a route up twice, at each request.
        app.router.routes.extend(guarded(router.routes, keeper))
    if settings.docs:
        add_reference(app)
    add_handlers(app)
    surround(app, settings, gateway)
    return app


def surround(app: FastAPI, settings: Settings, gateway: Gateway) -> None:
    """What happens around every request; the last of these is the outermost."""
    app.add_middleware(
        BodyLimit, max_body_bytes=settings.max_body_bytes, slow_seconds=settings.slow_seconds
    )
    app.add_middleware(OwnSite)
    if settings.metrics_port:
        app.add_middleware(SidePort, port=settings.metrics_port)
    app.add_middleware(Boundary, metrics=gateway.metrics, tracer=gateway.tracer)


def gateway_of(
    settings: Settings,
    catalog: Catalog,
    broker: Broker,
    store: ImageStore,
    messenger: Messenger | None,
    metrics: GatewayMetrics,
    tracer: Tracer = SILENT,
) -> Gateway:
    """What the routes work with."""
    metrics.waiters.set_function(lambda: broker.hub.waiting)
    metrics.queue_bound_seconds.set(settings.max_queued_seconds)
    default = catalog[settings.default_checkpoint or next(iter(catalog))].name
    return Gateway(
        broker=broker,
        catalog=catalog,
        store=store,
        tokenizers=Tokenizers(),
        metrics=metrics,
        exposition=Exposition(metrics.registry, settings.metrics_socket),
        max_body_bytes=settings.max_body_bytes,
        max_wait_seconds=settings.max_wait_seconds,
        default_checkpoint=default,
        aliases=aliases_of(settings.aliases, catalog),
        models=settings.models_dir,
        decoders=asyncio.Semaphore(DECODERS),
        outlook=Outlook(
            broker,
            max_queued=settings.max_queued,
            max_queued_seconds=settings.max_queued_seconds,
        ),
        abandoned_seconds=settings.abandoned_seconds,
        tasks=set(),
        streams=Streams(settings.max_streams, metrics),
        messenger=messenger,
        space=Space(store, metrics, min_free_bytes=settings.min_free_bytes),
        expected=tuple(dict.fromkeys((default, *expected_of(settings, catalog)))),
        presigned_seconds=settings.presigned_seconds,
        tracer=tracer,
        log_prompts=settings.log_prompts,
    )


def make_server(settings: Settings, catalog: Catalog) -> uvicorn.Server:
    """A gateway ready to run where the settings say."""
    store = open_store(settings.storage, settings.data_dir)
    tracer = visits.tracer_of(settings)
    broker = Broker(
        settings.redis,
        retention_seconds=settings.retention_seconds,
        discard=store.delete,
        tell=visits.ends_told(tracer),
    )
    if not is_private(settings):
        broker.accounts.lock()
    config = uvicorn.Config(
        create_app(settings, catalog, broker, store, tracer),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=connections(settings.max_connections, settings.slow_seconds, settings.metrics_port),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    return ReleasingServer(config, broker)


def expected_of(settings: Settings, catalog: Catalog) -> list[str]:
    """For which checkpoints somebody said that there are workers."""
    if "workers" not in settings.model_fields_set:
        return []
    named = (worker.partition("@")[0] for worker in settings.workers.split())
    return [name for name in named if name in catalog]


def messenger_of(settings: Settings) -> Messenger | None:
    """Who calls webhooks, if there is a secret to sign them with."""
    if settings.webhook_secret is None:
        return None
    secrets = settings.webhook_secret.get_secret_value()
    return Messenger(secrets, Guard(settings.webhook_allow))


class ReleasingServer(uvicorn.Server):
    """Ends waits and event streams before it waits for its connections; they would never end."""

    def __init__(self, config: uvicorn.Config, broker: Broker) -> None:
        super().__init__(config)
        self._broker = broker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of who waits, then close as usual."""
        self._broker.hub.release()
        await super().shutdown(sockets)
