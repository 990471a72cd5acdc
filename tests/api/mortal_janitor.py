"""A janitor in a process of its own, which is killed where it is told to be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from server.broker import Broker
from server.broker.expiry import Expiry
from server.janitor import Janitor
from server.metrics import GatewayMetrics
from server.storage import FolderImageStore
from tests.api.house import RETENTION


def die(*_: Any) -> None:
    """As if killed: nothing is closed, written or said."""
    os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(FolderImageStore):
    """Dies when it has removed one file, or all."""

    dies = ""

    def discard(self, *keys: str) -> None:
        if self.dies == "in clear":
            super().discard(*keys[:1])
            die()
        super().discard(*keys)

    async def clear(self, folder: str) -> None:
        await super().clear(folder)
        if self.dies == "after clear":
            die()


class MortalExpiry(Expiry):
    """Dies when it has buried one."""

    async def bury(self, id: str, now: float) -> bool:
        await super().bury(id, now)
        die()
        return True


async def main(url: str, folder: str, now: float, dies: str) -> None:
    broker = Broker(url, retention_seconds=RETENTION)
    store = MortalStore(Path(folder) / "images")
    store.dies = dies
    if dies == "after bury":
        broker.expiry.__class__ = MortalExpiry
    metrics = GatewayMetrics(CollectorRegistry())
    await Janitor(broker, store, metrics, sweep_seconds=0).round(now)


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
