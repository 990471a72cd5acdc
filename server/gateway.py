"""One gateway process: the HTTP part. Needs no torch."""

from __future__ import annotations

import logging
import signal
import socket
import sys

from server.api.app import make_server
from server.catalog import Catalog
from server.config import Settings
from server.listener import url_of

log = logging.getLogger("darkroom.gateway")


def run_gateway(settings: Settings, catalog: Catalog, listener: socket.socket) -> None:
    """Serve HTTP on the listener until SIGTERM or SIGINT, then finish what is being answered."""
    # uvicorn raises the signal again when it is done; by then it has been obeyed.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: sys.exit(0))
    if settings.log_level != "debug":  # uvicorn tells each of its own steps at info
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = make_server(settings, catalog)
    server.config.timeout_graceful_shutdown = max(1, round(settings.drain_seconds))
    log.info("listening on %s", url_of(listener))
    server.run(sockets=[listener])
