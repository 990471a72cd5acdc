"""How a request's body arrives: bounded in bytes and in seconds, each alone and all together. Knows
no routes; plain ASGI, because this runs on the hot path.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.handlers import error_response
from server.errors import BodyTooLarge, RequestTimeout, Unavailable

PACE = 16 * 1024
"""Bytes that earn a body another second: whoever sends steadily is waited for, whatever is sent."""
ALL_BODIES = 16
"""How many of the largest bodies may be on their way at once; each is held in memory."""
AGAIN_SECONDS = 2.0


class BodyLimit:
    """Refuses a body at the byte that is too much, or when it stalls, not after it was read."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, slow_seconds: float) -> None:
        self._app = app
        self.max_bytes = max_body_bytes
        self.seconds = slow_seconds
        self.held = 0
        """Bytes of all bodies that are still arriving."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Announced sizes are refused at once; others are counted while they arrive."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        length, chunked = _announced(scope)
        if length > self.max_bytes:
            response = error_response(scope["path"], self.too_large(), {"Connection": "close"})
            return await response(scope, receive, send)
        if not length and not chunked:
            return await self._app(scope, receive, send)
        body = _Arriving(self, receive)
        try:
            return await self._app(scope, body.receive, send)
        finally:
            body.let_go()

    def too_large(self) -> BodyTooLarge:
        """The refusal."""
        return BodyTooLarge(f"the body is larger than {self.max_bytes:,} bytes")


class _Arriving:
    """One body."""

    def __init__(self, limit: BodyLimit, receive: Receive) -> None:
        self._limit = limit
        self._receive = receive
        self._until = asyncio.get_running_loop().time() + limit.seconds
        self._read = 0
        self._held = 0
        self._whole = False

    async def receive(self) -> Message:
        """The next part; after the last, whatever the server says.

        Raises:
            RequestTimeout, BodyTooLarge, Unavailable: no more of it is read.
        """
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise self._too_slow() from None
        size = len(message.get("body", b""))
        self._read += size
        self._until += size / PACE
        self._whole = not message.get("more_body", False)
        self._take(size)
        return message

    def let_go(self) -> None:
        """It has arrived, or nobody waits for the rest."""
        self._limit.held -= self._held
        self._held = 0

    def _take(self, size: int) -> None:
        if self._read > self._limit.max_bytes:
            raise self._limit.too_large()
        if self._whole:
            return self.let_go()
        self._held += size
        self._limit.held += size
        if self._limit.held > ALL_BODIES * self._limit.max_bytes:
            message = "too many large bodies are on their way; send it again in a moment"
            raise Unavailable(message, retry_after=AGAIN_SECONDS)

    def _too_slow(self) -> RequestTimeout:
        got = f"{self._read:,} bytes came"
        most = f"{self._limit.seconds:g} seconds, and one more for each {PACE:,} bytes"
        return RequestTimeout(f"the body came too slowly: {got}, and it may take {most}")


def _announced(scope: Scope) -> tuple[int, bool]:
    """How long the body is said to be, and whether it comes without saying so."""
    length, chunked = 0, False
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value.lstrip(b"0")[:20] or b"0")
        elif name == b"transfer-encoding":
            chunked = True
    return length, chunked
