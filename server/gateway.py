"""One gateway process: the HTTP part. Needs no torch."""

from __future__ import annotations

import gc
import logging
import resource
import signal
import socket
import sys

from server.api.app import make_server
from server.catalog import Catalog
from server.config import Settings
from server.listener import listen_aside, place_of

log = logging.getLogger("darkroom.gateway")

OTHER_FILES = 500
"""That a gateway has open beside its connections: to Redis, to the store, its logs."""


def run_gateway(settings: Settings, catalog: Catalog, listener: socket.socket) -> None:
    """Serve HTTP on the listener until SIGTERM or SIGINT, then finish what is being answered."""
    # uvicorn raises the signal again when it is done; by then it has been obeyed.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: sys.exit(0))
    if settings.log_level != "debug":  # uvicorn tells each of its own steps at info
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    most = room_for(settings.max_connections)
    server = make_server(settings.model_copy(update={"max_connections": most}), catalog)
    server.config.timeout_graceful_shutdown = max(1, round(settings.drain_seconds))
    listeners = [listener]
    if settings.metrics_port:
        listeners.append(listen_aside(settings))
    spare_collections()
    log.info("listening on http://%s", place_of(listener))
    try:
        server.run(sockets=listeners)
    finally:
        log.info("stopped")


def spare_collections() -> None:
    """Collections took a tenth of the time of a request, most of it looking at what stays as
    long as the process; requests leave few cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def room_for(connections: int) -> int:
    """So many connections, or as many as this process may hold open: each is a file to the system,
    and what it has no number for is not even refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    room = max(1, wanted - OTHER_FILES)
    if room < connections:
        log.warning("at most %d connections: this process may open %d files", room, wanted)
    return room
