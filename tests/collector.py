"""Somebody who collects traces: a real HTTP server that takes OTLP as the SDK sends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"

HOSTILE = (
    "",
    "00",
    GOOD + "\n",
    " " + GOOD,
    GOOD + "-more",
    GOOD.upper(),
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE[:-1]}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-1",
    f"00-{TRACE}-{SPAN}-0g",
    f"00-{'٣' * 32}-{SPAN}-01",
    f"01-{TRACE}-{SPAN}-01-" + "x" * 100_000,
    f"01-{TRACE}-{SPAN}-01-\x00",
    "00-<script>alert(1)</script>-x-01",
)


@dataclass(frozen=True)
class Seen:
    """A span. Times are seconds since the epoch."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    began: float
    ended: float
    error: str | None
    """What its status says; None where that is not an error."""
    attributes: dict[str, Any]
    service: str

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]


@dataclass
class Collector:
    """What it got."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def named(self, name: str) -> list[Seen]:
        """By when they began."""
        return sorted((s for s in self.spans if s.name == name), key=lambda span: span.began)

    def one(self, name: str) -> Seen:
        """The only span of this name."""
        [span] = self.named(name)
        return span

    def children(self, parent: Seen) -> list[str]:
        """Names of what has happened in its course, by when it began."""
        found = [span for span in self.spans if span.parent == parent.id]
        return [span.name for span in sorted(found, key=lambda span: (span.began, span.ended))]

    def take(self, body: bytes) -> None:
        self.raw.append(body)
        for told in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _plain(told.resource.attributes)["service.name"]
            for scope in told.scope_spans:
                self.spans += [_seen(span, service) for span in scope.spans]


def _seen(span: Span, service: str) -> Seen:
    failed = span.status.code == Status.STATUS_CODE_ERROR
    return Seen(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        began=span.start_time_unix_nano / 1e9,
        ended=span.end_time_unix_nano / 1e9,
        error=span.status.message if failed else None,
        attributes=_plain(span.attributes),
        service=service,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Any:
    return getattr(value, str(value.WhichOneof("value")))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on loopback, until the block ends."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.paths.add(self.path)
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
