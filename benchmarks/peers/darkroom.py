"""`darkroom serve` as it comes: Redis, a gateway and a worker."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psutil

from benchmarks.peers.orders import Order
from benchmarks.peers.places import PATIENCE_SECONDS, Checkpoint, Place, Shown
from server import private
from server.config import Settings

PREVIEWS = 3


class Darkroom:
    """A private one."""

    @contextlib.contextmanager
    def open(self, checkpoint: Checkpoint) -> Iterator[Place]:
        """With the settings that it has by itself, but for one."""
        here = psutil.Process()
        before = {child.pid for child in here.children()}
        # It stands still for minutes, which it would take for a call that hangs.
        os.environ["DARKROOM_HANG_SECONDS"] = "3600"
        with private.private_server(Settings(catalog=checkpoint.catalog), checkpoint.name) as url:
            yield Place(url, [child.pid for child in here.children() if child.pid not in before])

    async def draw(self, client: httpx.AsyncClient, order: Order, shown: Shown | None) -> bytes:
        """One POST that waits, or as a page does that shows previews."""
        if shown:
            return await _watched(client, order, shown)
        answer = await client.post(
            "/v1/generations",
            json=order.body(),
            headers={"Prefer": f"wait={PATIENCE_SECONDS:g}", "Accept": "image/png"},
        )
        return answer.raise_for_status().content


async def _watched(client: httpx.AsyncClient, order: Order, shown: Shown) -> bytes:
    body = order.body() | {"previews": PREVIEWS}
    urls = (await client.post("/v1/generations", json=body)).raise_for_status().json()["urls"]
    first = True
    async with client.stream("GET", urls["events"]) as stream:
        async for event, data in _events(stream):
            if event == "preview" and first:
                (await client.get(data["url"])).raise_for_status()
                shown()
                first = False
            if event == "done":
                break
    record = (await client.get(urls["self"])).raise_for_status().json()
    return (await client.get(record["images"][0]["url"])).raise_for_status().content


async def _events(stream: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    event = ""
    async for line in stream.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)
