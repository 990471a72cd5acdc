"""Generations asked for at a rate, whatever becomes of those before, by clients that keep their
connections. Most wait for the answer; one of so many is only accepted, which is timed, and looks
for it now and then. All fetch their picture."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.control.crew import CHECKPOINT, SIDE

WAIT = "wait=60"
TIMED = 8
"""One of so many does not wait for the answer to its request."""
LOOK_SECONDS = 0.5
KEPT_SECONDS = 2.0
"""An idle connection; shorter than the gateway keeps one, so that both never meet."""
PNG = b"\x89PNG"
SPEC = {
    "checkpoint": CHECKPOINT,
    "prompt": "a lighthouse above the sea at dusk, oil on canvas",
    "width": SIDE,
    "height": SIDE,
    "guidance_scale": 7.5,
    "sampler": "ddim",
}


class Line:
    """One kept connection. As little of HTTP as it takes, so that clients are cheap."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
        lines += ["Content-Type: application/json"] * bool(body)
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("\r\ncontent-length: ")[2].partition("\r\n")[0]
        return int(head[9:12]), await self._reader.readexactly(int(length))

    def close(self) -> None:
        """It is used no more."""
        self._writer.close()


@dataclass(slots=True)
class Crowd:
    """All clients, and what came of what they asked for."""

    url: str
    steps: int
    asked: list[float] = field(default_factory=list)
    """When each was asked for."""
    accepts: list[tuple[float, float]] = field(default_factory=list)
    """When one was accepted, and seconds that took; of those that did not wait."""
    ends: list[tuple[float, float]] = field(default_factory=list)
    """When its picture was here, and seconds since it was asked for."""
    refused: int = 0
    """Answered otherwise than with a record; a gateway that cannot reach Redis in time does so."""
    queued: list[tuple[float, float]] = field(default_factory=list)
    """When its picture was here, and seconds that it waited for a worker."""
    _free: list[tuple[Line, float]] = field(default_factory=list)
    """Idle ones, and since when; the last was used last."""
    _number: int = 0

    async def come(self, rate: float, seconds: float, chance: random.Random) -> None:
        """Each independent of all others; returns when the last has its picture."""
        asked, began, at = [], time.monotonic(), 0.0
        while (at := at + chance.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            asked.append(asyncio.create_task(self._one()))
        await asyncio.gather(*asked)

    def leave(self) -> None:
        """Hang up."""
        for line, _ in self._free:
            line.close()
        self._free.clear()

    async def _one(self) -> None:
        self._number += 1
        body = json.dumps(SPEC | {"num_inference_steps": self.steps, "seed": self._number})
        asked = "POST", "/v1/generations", body.encode()
        line = await self._line()
        began = time.monotonic()
        self.asked.append(began)
        if self._number % TIMED:
            status, said = await line.ask(*asked, Prefer=WAIT)
        else:
            status, said = await line.ask(*asked)
            self.accepts.append((time.monotonic(), time.monotonic() - began))
        if status in (200, 202):
            await self._fetch(line, json.loads(said), began)
        else:
            self.refused += 1
        self._free.append((line, time.monotonic()))

    async def _fetch(self, line: Line, record: dict[str, Any], began: float) -> None:
        while record["status"] in ("queued", "running"):
            await asyncio.sleep(LOOK_SECONDS)
            status, said = await line.ask("GET", path_of(record["urls"]["self"]))
            if status != 200:
                raise RuntimeError(f"a look was answered with {status}: {said!r}")
            record = json.loads(said)
        if record["status"] != "succeeded":
            raise RuntimeError(f"a generation ended as {record['status']}: {record['error']}")
        status, picture = await line.ask("GET", path_of(record["images"][0]["url"]))
        if status != 200 or not picture.startswith(PNG):
            raise RuntimeError(f"its picture was answered with {status}")
        now = time.monotonic()
        self.ends.append((now, now - began))
        self.queued.append((now, record["metrics"]["queue_seconds"]))

    async def _line(self) -> Line:
        while self._free:
            line, since = self._free.pop()
            if time.monotonic() - since < KEPT_SECONDS:
                return line
            line.close()
        where = urlsplit(self.url)
        return Line(*await asyncio.open_connection(where.hostname, where.port, limit=2**21))


def path_of(url: str) -> str:
    """Of an address that the server gave."""
    return urlsplit(url).path
