"""Somebody who receives webhooks: a real HTTP server that verifies what it gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook

SECRET = "whsec_" + 8 * "c2Vj" + "cmV0"
OTHER_SECRET = "whsec_" + 8 * "b3Ro" + "ZXIh"


@dataclass
class Receiver:
    """What it got, and what it answers: these statuses in turn, then 204."""

    url: str = ""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    before: Callable[[], Any] = lambda: None
    """Done when a message has come, before it is answered."""

    def answer(self, *statuses: int, **headers: str) -> None:
        """Answer so to the next ones."""
        self.answers += [(status, headers) for status in statuses]

    def verified(self, number: int = -1, secret: str = SECRET) -> dict[str, Any]:
        """A message, if its signature is good and it is not old."""
        headers, body = self.got[number]
        found: dict[str, Any] = Webhook(secret).verify(body, headers)
        return found

    @property
    def ids(self) -> list[str]:
        """The id of each message."""
        return [headers["webhook-id"] for headers, _ in self.got]


class Server(ThreadingHTTPServer):
    """Takes all calls of a full deliverer at once; five are what it takes by default."""

    request_queue_size = 128


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on loopback, until the block ends."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.paths.append(self.path)
            receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            receiver.before()
            status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
