"""Spans told to an OpenTelemetry collector by OTLP over HTTP. The only file that imports its SDK.

They are sent in batches by a thread of the SDK's own. Where the collector is slow or away they wait
in a bounded queue, and what finds it full is dropped, which the SDK's log says now and then.
"""

from __future__ import annotations

import logging
import threading
import time

from opentelemetry.context import Context as Surroundings
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan

from server import __version__
from server.tracing.about import Attributes
from server.tracing.context import Context
from server.tracing.memory import Memory
from server.tracing.tracer import Kind, Span

CLOSE_SECONDS = 3.0
"""What a process that ends gives to its last spans."""
QUIET_SECONDS = 60.0
EXPORTER = trace_exporter.__name__
"""Of the SDK's logger that says what goes wrong on the way to the collector."""
KINDS = {
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
    Kind.CONSUMER: SpanKind.CONSUMER,
    Kind.INTERNAL: SpanKind.INTERNAL,
}


class OtlpTracer:
    """A `Tracer`. What the settings do not say (headers, certificates, the size of a batch), the
    SDK reads from its own OTEL_* variables."""

    on = True

    def __init__(self, endpoint: str, ratio: float, *, service: str, instance: str) -> None:
        resource = Resource.create(
            {
                "service.name": service,
                "service.namespace": "darkroom",
                "service.version": __version__,
                "service.instance.id": instance,
            }
        )
        sampler = ParentBased(TraceIdRatioBased(ratio))
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("darkroom", __version__)
        self._memory = Memory()
        self._memory.begin()
        self._seldom = Seldom()
        logging.getLogger(EXPORTER).addFilter(self._seldom)

    def begin(
        self,
        name: str,
        parent: Context | None,
        *,
        kind: Kind = Kind.INTERNAL,
        at: float | None = None,
        attributes: Attributes | None = None,
    ) -> Span:
        """A span in its parent's trace, or in a new one."""
        return OtlpSpan(
            self._tracer.start_span(
                name, _around(parent), KINDS[kind], attributes, start_time=_nanoseconds(at)
            )
        )

    def remember(self, generation: str, context: Context | None) -> None:
        """To which trace a generation belongs, for the log."""
        if context is not None:
            self._memory.keep(generation, context.trace)

    def close(self) -> None:
        """Send what is left. Beside us: the SDK would wait half a minute for a collector that is
        away."""
        self._memory.end()
        logging.getLogger(EXPORTER).removeFilter(self._seldom)
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_SECONDS)
        if sending.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


class Seldom(logging.Filter):
    """One line in a while: the SDK has one for each try, of which there is no end."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Not so soon after the last."""
        now = time.monotonic()
        if now - self._said_at < QUIET_SECONDS:
            return False
        self._said_at = now
        return True


class OtlpSpan:
    """A `Span`."""

    def __init__(self, span: SdkSpan) -> None:
        self._span = span
        made = span.get_span_context()
        trace, span_id = format_trace_id(made.trace_id), format_span_id(made.span_id)
        self.context = Context(trace, span_id, made.trace_flags.sampled)

    def say(self, attributes: Attributes) -> None:
        """More of it."""
        self._span.set_attributes(attributes)

    def end(self, *, name: str = "", error: str = "", at: float | None = None) -> None:
        """It is over."""
        if name:
            self._span.update_name(name)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR, error)
        self._span.end(_nanoseconds(at))


def _around(parent: Context | None) -> Surroundings:
    """Never what the SDK takes for the current span: nobody here sets that."""
    if parent is None:
        return Surroundings()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    about = SpanContext(
        int(parent.trace, 16), int(parent.span, 16), is_remote=True, trace_flags=flags
    )
    return set_span_in_context(NonRecordingSpan(about), Surroundings())


def _nanoseconds(at: float | None) -> int | None:
    return None if at is None else int(at * 1e9)
