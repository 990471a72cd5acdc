"""Traces: what happened to a request from its arrival to its last picture, told to a collector.

context  where in which trace something happens, and how that is carried from process to process
tracer   spans are begun and ended; silent where tracing is off
memory   which trace a generation belongs to, for each line of the log
about    what a span says of a generation
otlp     spans told to an OpenTelemetry collector; needs the extra `tracing`

Knows neither HTTP nor Redis. No span holds a prompt, a key or anything else that a caller made up.
"""

from server.tracing.about import Attributes, about
from server.tracing.context import Context
from server.tracing.tracer import SILENT, Kind, Span, Tracer, expect_extra, open_tracer

__all__ = [
    "SILENT",
    "Attributes",
    "Context",
    "Kind",
    "Span",
    "Tracer",
    "about",
    "expect_extra",
    "open_tracer",
]
