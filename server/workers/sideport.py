"""A worker's side port: what machines that look after it ask. It is for a network that others
cannot reach, and knows nothing but three paths.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from threading import Lock, Thread
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from server.config import Settings
from server.listener import listen_aside

log = logging.getLogger("darkroom.worker")

Answer = tuple[HTTPStatus, str, bytes]
MOST_OPEN = 64
PATIENCE_SECONDS = 10.0
"""With who has connected and asks for nothing."""


class SidePort:
    """Answers on threads of its own, from before the checkpoint is loaded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.ready: Callable[[], bool] = lambda: False
        """Whether the worker serves its queue."""

    def start(self, settings: Settings) -> None:
        """Listen, where the settings name a port.

        Raises:
            DarkroomError: it is in use, or the address is not ours.
        """
        if not settings.metrics_port:
            return
        listener = listen_aside(settings)
        # Made without a socket of its own, and given ours.
        server = _Server(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        server.socket.close()
        server.socket, server.answer = listener, self.answer
        Thread(target=server.serve_forever, name="darkroom-side-port", daemon=True).start()

    def answer(self, path: str) -> Answer:
        """To a GET."""
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/healthz":
            return _said(HTTPStatus.OK, "ok")
        if path == "/readyz":
            if self.ready():
                return _said(HTTPStatus.OK, "ready")
            return _said(HTTPStatus.SERVICE_UNAVAILABLE, "it does not serve its queue")
        return _said(HTTPStatus.NOT_FOUND, "here are /metrics, /healthz and /readyz")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: Callable[[str], Answer]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._open: dict[Any, None] = {}
        self._lock = Lock()

    # Any: socketserver takes a datagram for a request, too.
    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread. Whoever has held a connection for longest makes room: a probe is always
        let in, and soon done."""
        with self._lock:
            self._open[request] = None
            if len(self._open) > MOST_OPEN:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(SHUT_RDWR)  # its thread reads that there is no more
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """It is over."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asks may hang up; that is no matter for stderr."""
        log.debug("%s was not answered", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        status, kind, body = self.server.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "darkroom"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: these are asked all the time."""


def _said(status: HTTPStatus, words: str) -> Answer:
    return status, "text/plain; charset=utf-8", f"{words}\n".encode()
