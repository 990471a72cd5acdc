"""Two gateways and three workers in processes of their own, a mortal Redis, and a network between
them that can break: what chaos is let loose on."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from redis import Redis

from server.embedded import find_redis_server
from tests.chaos import worker
from tests.chaos.places import PLACES, Needs
from tests.fuzz.house import GatewayProcess, wait_until
from tests.queue.faults import Proxy
from tests.redis_server import RedisServer

GATEWAYS, WORKERS = 2, 3
CHECKPOINTS = ("demo", "refiner", "upscaler")
START_SECONDS = 60.0

CARDS = """
[checkpoints.refiner]
extends = "demo"
tasks = ["image-to-image"]

[checkpoints.upscaler]
extends = "demo"
native_size = 512
tasks = ["upscale"]
limits = { side_multiple = 32, min_side = 256, max_side = 2048, max_pixels = 1048576 }
"""

# Its processes start in a hundredth of a second, from one that has imported everything.
forks = multiprocessing.get_context("forkserver")


class Link(Proxy):
    """What one process has of the network."""

    def __init__(self, target: str, dice: random.Random) -> None:
        super().__init__(target, dice)
        self.troubled = False

    def lose(self) -> None:
        """Every fourth reply."""
        self.lossy = 0.25

    def delay(self) -> None:
        """Everything, by as much as a continent's width."""
        self.delay_seconds = 0.03

    def heal(self) -> None:
        super().heal()
        self.troubled = False


class Hand:
    """A worker process, and the one that comes after it when it has died."""

    def __init__(self, house: House, number: int) -> None:
        self._house, self._number = house, number
        self.link = Link(house.redis.socket, house.dice)
        self.lives = 0
        self.dies = ""
        self.frozen = False
        self.told = False
        self.hire()

    def hire(self, dies: str = "") -> None:
        """A new process, to die at that place if one is named."""
        self.lives += 1
        self.dies, self.frozen, self.told = dies, False, False
        times = (
            self._house.dice.randint(1, 2) if dies and PLACES[dies].needs is Needs.NOTHING else 1
        )
        self.process: ForkServerProcess = forks.Process(
            target=worker.main,
            args=(self._settings(), CHECKPOINTS, self.name, str(self.log), dies, times),
        )
        self.process.start()

    @property
    def name(self) -> str:
        return f"hand{self._number}-{self.lives}"

    @property
    def log(self) -> Path:
        return self._house.folder / f"hand{self._number}.log"

    @property
    def alive(self) -> bool:
        return self.process.exitcode is None

    def send(self, signum: signal.Signals) -> None:
        if self.alive and self.process.pid:
            os.kill(self.process.pid, signum)

    def kill(self) -> None:
        """And wait until it is dead."""
        self.send(signal.SIGKILL)
        self.process.join()

    def _settings(self) -> dict[str, Any]:
        return {
            "redis": self.link.url,
            "data_dir": str(self._house.folder),
            "lease_seconds": self._house.lease_seconds,
            "beat_seconds": self._house.lease_seconds / 10,
            "drain_seconds": 0.2,
            "capacity": 8,
        }


class Gate:
    """A gateway, and the one that comes after it when it has died."""

    def __init__(self, house: House, number: int) -> None:
        self._house, self._number = house, number
        self.link = Link(house.redis.socket, house.dice)
        self.said: list[Callable[[], str]] = []
        self.open()

    def open(self) -> None:
        """Start one, and wait until it listens."""
        folder = self._house.folder / f"gateway{self._number}-{len(self.said)}"
        folder.mkdir()
        self._process = GatewayProcess(
            self.link.url,
            folder,
            data_dir=self._house.folder,
            catalog=self._house.folder / "cards.toml",
            max_queued=10**6,
            max_queued_seconds=1e6,
            sweep_seconds=0,
        )
        self.said.append(lambda process=self._process: process.said)  # type: ignore[misc]

    @property
    def url(self) -> str:
        """Where it listens; empty while it does not."""
        return self._process.url if self._process.alive else ""

    def kill(self) -> None:
        """And wait until it is dead."""
        self._process.process.kill()
        self._process.process.wait()

    def end(self) -> None:
        self._process.end()


class House:
    """All of it. `dice` decide what is left to chance."""

    def __init__(self, folder: Path, dice: random.Random, lease_seconds: float) -> None:
        self.folder, self.dice, self.lease_seconds = folder, dice, lease_seconds
        (folder / "cards.toml").write_text(CARDS)
        self.redis = RedisServer(find_redis_server()[0])
        self.redis.start()
        self.direct = Redis.from_url(self.redis.url)
        forks.set_forkserver_preload(["tests.chaos.worker"])
        self._pool = ThreadPoolExecutor(GATEWAYS)
        self.hands: list[Hand] = []
        self.gates: list[Gate] = []

    def open(self) -> None:
        """Start everything, and wait until there is somebody to draw."""
        self.hands = [Hand(self, number) for number in range(WORKERS)]
        self.gates = list(self._pool.map(lambda number: Gate(self, number), range(GATEWAYS)))
        wait_until(self._served, START_SECONDS)

    def _served(self) -> bool:
        return all(self.direct.exists(f"darkroom:served:{name}") for name in CHECKPOINTS)

    def _links(self) -> list[Link]:
        return [hand.link for hand in self.hands] + [gate.link for gate in self.gates]

    def urls(self) -> list[str]:
        """Of the gateways that are up."""
        return [gate.url for gate in self.gates if gate.url]

    def soon(self, action: Callable[[], Any]) -> Future[Any]:
        """Do it on another thread."""
        return self._pool.submit(action)

    def heal(self) -> None:
        """The network is well, and nobody is frozen."""
        for link in self._links():
            link.heal()
        for hand in self.hands:
            hand.send(signal.SIGCONT)

    def said(self) -> str:
        """Everything that workers have logged."""
        return "".join(hand.log.read_text() for hand in self.hands if hand.log.exists())

    def close(self) -> None:
        self._pool.shutdown()
        for hand in self.hands:
            hand.kill()
        for gate in self.gates:
            gate.kill()
        for link in self._links():
            link.close()
        self.direct.close()
        self.redis.close()


@contextmanager
def a_house(folder: Path, dice: random.Random, lease_seconds: float) -> Iterator[House]:
    """For as long as the block takes."""
    house = House(folder, dice, lease_seconds)
    try:
        house.open()
        yield house
    finally:
        house.close()
