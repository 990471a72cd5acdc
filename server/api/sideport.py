"""The gateway's side port: what machines that look after this one ask, and nothing else, without a
key. It is for a network that others cannot reach.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.handlers import error_response
from server.errors import NotFound

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_MARK = "darkroom.side_port"
_ELSEWHERE = NotFound("here are /metrics, /healthz and /readyz; all else is at the gateway's port")


class SidePort:
    """Marks what comes in at this port, if it may come in there."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """By the socket, not by what a request says of itself."""
        if scope["type"] == "http" and (scope.get("server") or ("", 0))[1] == self._port:
            if scope["path"] not in PROBES:
                return await error_response(scope["path"], _ELSEWHERE)(scope, receive, send)
            scope[_MARK] = True
        return await self._app(scope, receive, send)


def at_side_port(scope: Scope) -> bool:
    """Whether a request came in at the side port."""
    return _MARK in scope
