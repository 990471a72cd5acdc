"""What happens around every request: who may send it, and what is told and added at the end.

Plain ASGI, because this runs on the hot path and streams pass through it.
"""

from __future__ import annotations

import logging
import re
import time
from functools import cache

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api import visits
from server.api.handlers import error_response
from server.api.sideport import PROBES
from server.broker import LOCAL
from server.errors import CrossSite, DarkroomError
from server.metrics import GatewayMetrics
from server.spec import GENERATION_ID
from server.tracing import SILENT, Tracer

log = logging.getLogger("darkroom.api")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
READS = frozenset({"GET", "HEAD", "OPTIONS"})
CROSS_SITE = (b"sec-fetch-site", b"cross-site")
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
POLICY = b"content-security-policy"
STRICT = [*SECURITY, (POLICY, b"default-src 'none'; frame-ancestors 'none'")]
"""Of all that is no page; a page says its own policy."""
UNCACHED = (b"cache-control", b"no-store")
CLIENT_GONE = 499
"""What nginx logs for a client that left before it was answered."""


class OwnSite:
    """Refuses what a page of another site has a browser send. Such a page may not read answers, but
    without this it could have things drawn, or deleted, by whoever opens it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Programs that are no browsers send no such header, and pass."""
        changes = scope["type"] == "http" and scope["method"] not in READS
        if changes and CROSS_SITE in scope["headers"]:
            return await error_response(scope["path"], _FOREIGN)(scope, receive, send)
        return await self._app(scope, receive, send)


class Boundary:
    """The last line: catches what nobody caught, adds headers; logs, counts and traces each
    request. Probes, which machines ask all the time, are not traced, and told at debug only."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, tracer: Tracer = SILENT) -> None:
        self._app = app
        self._tracer = tracer
        # Looking a child up by its labels costs three times what counting does.
        self._counters = cache(
            lambda route, method, status: (
                metrics.http_requests_total.labels(route, method, status),
                metrics.http_request_seconds.labels(route, method),
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One answer for every request, and one line and one count for every answer."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.perf_counter(), 0
        visit = visits.begin(SILENT if scope["path"] in PROBES else self._tracer, scope)

        async def finished(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message)
            await send(message)

        try:
            await self._app(scope, receive, finished)
        except ClientDisconnect:  # nobody is left to answer
            status = CLIENT_GONE
        except Exception:  # the last chance to answer; the traceback is for the log alone
            log.exception("an unexpected error", extra=_known(scope, visit))
            if not status:
                answer = error_response(scope["path"], _UNEXPECTED)
                await answer(scope, receive, finished)
        finally:
            self._tell(scope, visit, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, visit: visits.Visit, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        count, duration = self._counters(route, method, status)
        count.inc()
        duration.observe(seconds)
        level = logging.DEBUG if route in PROBES else logging.INFO
        if log.isEnabledFor(level):
            line = f"{method} {route} {status} {seconds * 1000:.1f} ms"
            # Not `log.info`, which looks for its caller: once a request that is too dear.
            record = logging.LogRecord(log.name, level, "", 0, line, None, None)
            vars(record).update(_known(scope, visit))
            log.handle(record)
        # Else anybody could fill the collector, and push out what others did.
        if scope.get("state", {}).get("admitted") or status == visits.SERVER_ERROR:
            visits.end(visit, method, route, status)


_FOREIGN = CrossSite("a page of another site must not do this; call from your own server instead")
_UNEXPECTED = DarkroomError("something went wrong on our side; the server's log says what")


def _add_headers(message: Message) -> None:
    headers: list[tuple[bytes, bytes]] = message["headers"]
    said = {name for name, _ in headers}
    headers += SECURITY if POLICY in said else STRICT
    if b"cache-control" not in said:
        headers.append(UNCACHED)


def _known(scope: Scope, visit: visits.Visit) -> dict[str, str]:
    """Which account it was, its trace, and the generation that it made or that the path names, if
    that can be an id: a log keeps nothing that a caller made up."""
    id = visit.generation or scope.get("path_params", {}).get("id")
    known = {"generation": id} if id and re.fullmatch(GENERATION_ID, id) else {}
    if visit.span is not None:
        known["trace"] = visit.span.context.trace
    account = scope.get("state", {}).get("account", LOCAL)
    return known if account is LOCAL else known | {"account": account.id}
