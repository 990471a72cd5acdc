"""What a request is known by once it has been answered: for its line in the log, and for its trace.

A visit belongs to the task that answers the request, so whoever accepts a generation can say which,
without being handed anything. Says nothing that a caller made up, but for prompts, where asked to.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import Scope

from server.api.deps import Gateway
from server.broker import LOCAL, Generation
from server.broker.leftovers import Tell, say_nothing
from server.config import Settings
from server.errors import DeadlineExceeded
from server.spec import AnySpec, GenerationState
from server.tracing import Context, Kind, Span, Tracer, about, open_tracer

log = logging.getLogger("darkroom.api")

TRACEPARENT = b"traceparent"
SERVER_ERROR = 500
MAX_PROMPT = 1000
"""Characters of a prompt that are logged."""


@dataclass(slots=True)
class Visit:
    """One request."""

    span: Span | None = None
    """None where there is no tracing."""
    generation: str = ""
    """That it has made, or found again."""

    @property
    def traceparent(self) -> str:
        """For what goes on where this request ends; empty where there is no tracing."""
        return "" if self.span is None else str(self.span.context)


_VISIT: ContextVar[Visit | None] = ContextVar("darkroom_visit", default=None)


def tracer_of(settings: Settings) -> Tracer:
    """Of a gateway.

    Raises:
        DarkroomError: the extra `tracing` is not installed.
    """
    return open_tracer(
        settings.otlp_endpoint,
        settings.trace_ratio,
        service="darkroom-gateway",
        instance=f"{socket.gethostname()}-{os.getpid()}",
    )


def begin(tracer: Tracer, scope: Scope) -> Visit:
    """From now on this is what the task does."""
    visit = Visit()
    if tracer.on:
        visit.span = tracer.begin("request", _caller(scope), kind=Kind.SERVER)
    _VISIT.set(visit)
    return visit


def current() -> Visit:
    """Of the request that is being answered."""
    return _VISIT.get() or Visit()


def end(visit: Visit, method: str, route: str, status: int) -> None:
    """It has been answered. What is not ended is not told of."""
    if visit.span is None:
        return
    about_it = {"http.request.method": method, "http.route": route}
    visit.span.say(about_it | {"http.response.status_code": status})
    failed = str(status) if status >= SERVER_ERROR else ""
    visit.span.end(name=f"{method} {route}", error=failed)


def accepted(gate: Gateway, generation: Generation, *, made: bool) -> None:
    """The request has made a generation, or found it again."""
    visit = current()
    visit.generation = generation.id
    if visit.span is not None:
        visit.span.say({"darkroom.generation": generation.id, **about(generation.spec)})
        gate.tracer.remember(generation.id, Context.read(generation.traceparent))
    if made and gate.log_prompts:
        who = {} if gate.account is LOCAL else {"account": gate.account.id}
        log.info(
            "accepted", extra={"generation": generation.id, **who, **_prompts(generation.spec)}
        )


def ends_told(tracer: Tracer) -> Tell:
    """Tells of generations that nobody has drawn: they ended in the queue."""

    def tell(ended: Generation, state: GenerationState) -> None:
        context = Context.read(ended.traceparent)
        tracer.remember(ended.id, context)
        if context is None:
            return
        said = {
            **about(ended.spec),
            "darkroom.generation": ended.id,
            "darkroom.checkpoint": ended.checkpoint,
            "darkroom.stage": ended.stage_number + 1,
            "darkroom.outcome": state.value,
        }
        since = ended.queued_at or ended.created_at
        span = tracer.begin(f"queue {ended.checkpoint}", context, at=since, attributes=said)
        late = state is GenerationState.EXPIRED
        span.end(error=DeadlineExceeded.code if late else state.value, at=max(since, time.time()))

    return tell if tracer.on else say_nothing


def _caller(scope: Scope) -> Context | None:
    """Where the caller's own trace is. Several say nothing."""
    said = [value for name, value in scope["headers"] if name == TRACEPARENT]
    return Context.read(said[0].decode("latin-1")) if len(said) == 1 else None


def _prompts(spec: AnySpec) -> dict[str, str]:
    """Escaped by whoever writes the line."""
    said = {"prompt": spec.prompt, "negative_prompt": spec.negative_prompt}
    if spec.sdxl is not None:
        said["prompt_2"] = spec.sdxl.prompt_2
        said["negative_prompt_2"] = spec.sdxl.negative_prompt_2
    return {name: _short(text) for name, text in said.items() if text}


def _short(text: str) -> str:
    return text if len(text) <= MAX_PROMPT else f"{text[:MAX_PROMPT]}…"
