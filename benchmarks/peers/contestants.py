"""Everybody who draws, in their ordinary best configuration."""

from __future__ import annotations

import base64
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from benchmarks.peers import venvs
from benchmarks.peers.darkroom import Darkroom
from benchmarks.peers.orders import Order
from benchmarks.peers.places import Checkpoint, Peer, Place, Shown, free_port, process
from benchmarks.peers.xinference import Xinference

DARKROOM, LOCK, GROUPS = "Darkroom", "lock around pipeline", "request batching"
LITSERVE, BENTOML, XINFERENCE = "LitServe", "BentoML", "Xinference"
MOST = 16
"""Pictures in a batch of those who batch requests."""


@dataclass(frozen=True, slots=True)
class Script:
    """A server of this package, which has one endpoint that takes an order."""

    module: str
    options: tuple[str, ...] = ()
    """What follows the folder and the port on its command line."""

    @contextlib.contextmanager
    def open(self, checkpoint: Checkpoint) -> Iterator[Place]:
        """As one process, and those that it starts."""
        port = free_port()
        name = f"benchmarks.peers.{self.module}"
        words = [sys.executable, "-m", name, str(checkpoint.folder), str(port), *self.options]
        with process(words, port, {}) as place:
            yield place

    async def draw(self, client: httpx.AsyncClient, order: Order, shown: Shown | None) -> bytes:
        """One POST."""
        answer = await client.post("/predict", json=order.body())
        return answer.raise_for_status().content


class Bento:
    """BentoML, whose batches are lists on both sides."""

    @contextlib.contextmanager
    def open(self, checkpoint: Checkpoint) -> Iterator[Place]:
        """In an environment of its own."""
        port = free_port()
        words = [venvs.bentoml(), "-m", "bentoml", "serve"]
        words += ["benchmarks.peers.bento_server:Diffusion"]
        words += ["--host", "127.0.0.1", "--port", str(port)]
        with tempfile.TemporaryDirectory() as home:
            more = {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True"}
            more |= {"PEER_FOLDER": str(checkpoint.folder), "PEER_MOST": str(MOST)}
            with process(words, port, more) as place:
                yield place

    async def draw(self, client: httpx.AsyncClient, order: Order, shown: Shown | None) -> bytes:
        """One POST of a batch of one."""
        answer = await client.post("/predict", json={"orders": [order.body()]})
        return base64.b64decode(answer.raise_for_status().json()[0])


def peers() -> dict[str, Peer]:
    """By name, in the order of reports."""
    return {
        DARKROOM: Darkroom(),
        LOCK: Script("lock_server"),
        GROUPS: Script("group_server", (str(MOST),)),
        LITSERVE: Script("lit_server", (str(MOST),)),
        BENTOML: Bento(),
        XINFERENCE: Xinference(),
    }
