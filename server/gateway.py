"""One gateway process: the HTTP part, put together. Needs no torch."""

from __future__ import annotations

import signal
import socket
import sys

import uvicorn

from server.api.app import create_app
from server.broker import Broker
from server.catalog import Catalog
from server.config import Settings
from server.storage import open_store

def run_gateway(settings: Settings, catalog: Catalog, listener: socket.socket) -> None:
    """Serve HTTP on the listener until SIGTERM or SIGINT, then finish what is being answered."""
    # uvicorn raises the signal again when it is done; by then it has been obeyed.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: sys.exit(0))
    broker = Broker(
        settings.redis,
        max_queued=settings.max_queued,
        retention_seconds=settings.retention_seconds,
    )
    app = create_app(settings, broker, catalog, open_store(settings.storage, settings.data_dir))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    uvicorn.Server(config).run(sockets=[listener])
