"""Connections, bounded where uvicorn bounds nothing: how many there are, how large a request's head
may be, and how long a client may leave us waiting. Knows bytes and seconds; knows no routes.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.api.handlers import error_response
from server.errors import (
    BadRequest,
    DarkroomError,
    HeadTooLarge,
    RequestTimeout,
    TooManyConnections,
)

log = logging.getLogger("darkroom.connections")

MOST_HEAD = 64 * 1024
"""Bytes of a request line and its headers."""
HEAD_WORDS = f"the request's head is too large, at most {MOST_HEAD:,} bytes are read"
MOST_HEADERS = 100
MOST_ASIDE = 64
"""Connections to the side port."""
AGAIN_SECONDS = 5.0
TOLD_SECONDS = 60.0
"""How often the log says that connections are refused."""


class Joining(asyncio.Transport):
    """Sends the head of an answer and what follows it in one packet: uvicorn writes them one by
    one, and each write costs this process a call into the system and the client a wake-up."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """With what was held back, or else held back until the loop's next turn."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif data:
            self._held = bytes(data)
            self._loop.call_soon(self._send)

    def close(self) -> None:
        """Once all is sent."""
        self._send()
        self._transport.close()

    def abort(self) -> None:
        """At once."""
        self._held = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is, or has been closed."""
        return self._transport.is_closing()

    def _send(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)


class Connection(HttpToolsProtocol):
    """One client. Where nothing but the client is waited for, one timer runs."""

    most = 10_000
    seconds = 60.0
    side_port = 0
    aside: ClassVar[dict[Connection, None]] = {}
    """Those of the side port, the oldest first."""
    _told = -TOLD_SECONDS

    _in_head = True
    _head_bytes = 0
    _wrong: DarkroomError | None = None
    _waiting: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuses the one that is too much; of any other a request is expected now."""
        super().connection_made(transport)
        self.transport = Joining(transport, self.loop)
        # A slice: the name of a unix socket is a string, which may be empty.
        if self.side_port and transport.get_extra_info("sockname")[1:2] == (self.side_port,):
            self._come_aside()
        elif len(self.connections) - len(self.aside) > self.most:
            self._tell_of_refusals()
            wait = TooManyConnections("too many connections are open; come back in a moment")
            wait.retry_after = AGAIN_SECONDS
            return self._refuse(wait)
        self._waiting = self.loop.call_later(self.seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self.aside.pop(self, None)
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As uvicorn reads it, while it is worth reading."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD:
                return self._refuse(HeadTooLarge(HEAD_WORDS))
        if self._waiting is None and self._expects_more():
            self._waiting = self.loop.call_later(self.seconds, self._too_slow)

    def on_message_begin(self) -> None:
        """A request line."""
        self._stop_waiting()
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there; a body is its reader's affair."""
        self._stop_waiting()
        self._in_head = False
        self._wrong = self._too_large()
        if self._wrong is not None:
            raise self._wrong
        super().on_headers_complete()

    def _come_aside(self) -> None:
        """Who looks after this process must reach it when it is crowded, or would end it: at the
        side port, whoever has held a connection for longest makes room."""
        self.aside[self] = None
        if len(self.aside) > MOST_ASIDE:
            oldest = next(iter(self.aside))
            del self.aside[oldest]
            oldest.transport.abort()  # it may take nothing of what it has asked for

    def _too_large(self) -> HeadTooLarge | None:
        """One that came at once is parsed before its bytes are counted."""
        if len(self.headers) > MOST_HEADERS:
            return HeadTooLarge(f"at most {MOST_HEADERS} headers are read")
        lengths = sum(len(name) + len(value) for name, value in self.headers)
        return HeadTooLarge(HEAD_WORDS) if len(self.url) + lengths > MOST_HEAD else None

    def send_400_response(self, msg: str) -> None:
        """In our words instead of uvicorn's."""
        self._refuse(self._wrong or BadRequest("this is no HTTP request that can be read"))

    def pause_writing(self) -> None:
        """The client takes nothing of its answer, for now."""
        super().pause_writing()
        self._sending = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It took some."""
        super().resume_writing()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _expects_more(self) -> bool:
        """Whether the client is to send something that nobody else waits for: the rest of a head,
        or after an answer the rest of a body."""
        answered = self.cycle is None or self.cycle.response_complete
        return self._in_head or (answered and self.timeout_keep_alive_task is None)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_slow(self) -> None:
        if self._in_head and self._head_bytes:
            self._refuse(RequestTimeout(f"no whole request came within {self.seconds:g} seconds"))
        else:
            self.transport.close()

    def _refuse(self, error: DarkroomError) -> None:
        """Answer without a request, and hang up."""
        self._stop_waiting()
        answer = error_response("", error, {"Connection": "close"})
        status = HTTPStatus(answer.status_code)
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()

    def _tell_of_refusals(self) -> None:
        now, kind = self.loop.time(), type(self)
        if now - kind._told > TOLD_SECONDS:
            kind._told = now
            log.warning("connections are refused: %d are open, which is the most", self.most)


def connections(most: int, seconds: float, side_port: int = 0) -> type[Connection]:
    """Those of one gateway: so many, each as patient as this, and beside them those of the side
    port."""

    class Bounded(Connection):
        pass

    Bounded.most, Bounded.seconds, Bounded.side_port, Bounded.aside = most, seconds, side_port, {}
    return Bounded
