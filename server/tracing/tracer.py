"""Spans are begun and ended. Where tracing is off nothing of OpenTelemetry is loaded for it, and
whoever would tell of something looks at `on` first."""

from __future__ import annotations

from enum import Enum, auto
from importlib.util import find_spec
from typing import Protocol

from server.errors import DarkroomError
from server.tracing.about import Attributes
from server.tracing.context import Context

NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
NOWHERE = Context("0" * 32, "0" * 16, sampled=False)
"""What W3C calls invalid: nobody reads it as a context."""


class Kind(Enum):
    """How a span stands to its parent."""

    SERVER = auto()
    """It answers a request."""
    CLIENT = auto()
    """It is a request to somebody else."""
    CONSUMER = auto()
    """It does what was queued."""
    INTERNAL = auto()


class Span(Protocol):
    """Something that happens. May be used on any thread, by one at a time."""

    @property
    def context(self) -> Context:
        """For what happens in its course, wherever that is."""

    def say(self, attributes: Attributes) -> None:
        """More of it."""

    def end(self, *, name: str = "", error: str = "", at: float | None = None) -> None:
        """It is over. `name`: where that is known only now; `error`: the code of what it failed
        with."""


class Tracer(Protocol):
    """All times are seconds since the epoch; without one it is now. Never waits for a collector."""

    @property
    def on(self) -> bool:
        """Whether anybody listens."""

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

    def remember(self, generation: str, context: Context | None) -> None:
        """To which trace a generation belongs, for the log."""

    def close(self) -> None:
        """Send what is left, in a few seconds or not at all."""


class _SilentSpan:
    context = NOWHERE

    def say(self, attributes: Attributes) -> None:
        pass

    def end(self, *, name: str = "", error: str = "", at: float | None = None) -> None:
        pass


class _Silent:
    on = False

    def begin(
        self,
        name: str,
        parent: Context | None,
        *,
        kind: Kind = Kind.INTERNAL,
        at: float | None = None,
        attributes: Attributes | None = None,
    ) -> Span:
        return _SilentSpan()

    def remember(self, generation: str, context: Context | None) -> None:
        pass

    def close(self) -> None:
        pass


SILENT: Tracer = _Silent()
"""Tracing is off."""


def open_tracer(endpoint: str, ratio: float, *, service: str, instance: str) -> Tracer:
    """Tells a collector, or nobody where there is no endpoint. `ratio` is of the traces that begin
    here; `service` and `instance` say whose spans they are.

    Raises:
        DarkroomError: the extra is not installed.
    """
    if not endpoint:
        return SILENT
    expect_extra(endpoint)
    from server.tracing.otlp import OtlpTracer

    return OtlpTracer(endpoint, ratio, service=service, instance=instance)


def expect_extra(endpoint: str) -> None:
    """Nothing, where there is no endpoint, or all that telling it takes.

    Raises:
        DarkroomError: the extra is not installed.
    """
    if endpoint and not all(map(_is_installed, NEEDED)):
        raise DarkroomError(
            "DARKROOM_OTLP_ENDPOINT is set, and traces need the extra `tracing`, which is not "
            "installed: pip install '.[tracing]' in the folder of Darkroom's source"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it is in
        return False
