"""Several hosts on one machine: network namespaces on a switch, each with an address of its own,
and this process as one more. A cable can be pulled, and a host be kept from answering another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = 254


class Host:
    """One of them. `before` is what a command is begun with that is to run there."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name, self.address = name, network.address(number)
        self._space = f"{network.name}-{name}"
        self._switch = network.switch
        self.before = ("ip", "netns", "exec", self._space)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder = network.folder
        _ip("netns", "add", self._space)
        _ip("-n", self._switch, *_cable(name, "eth0", self._space))
        _ip("-n", self._switch, "link", "set", name, "master", "bridge", "up")
        _ip("-n", self._space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", self._space, "link", "set", link, "up")

    def pull(self) -> None:
        """Its cable out of the switch."""
        _ip("-n", self._switch, "link", "set", self.name, "down")

    def plug(self) -> None:
        """And in again."""
        _ip("-n", self._switch, "link", "set", self.name, "up")

    @contextmanager
    def mute_to(self, other: Host) -> Iterator[None]:
        """What it hears from the other it does not answer, for as long as the block takes."""
        route = ("blackhole", f"{other.address}/32")
        _ip("-n", self._space, "route", "add", *route)
        try:
            yield
        finally:
            _ip("-n", self._space, "route", "del", *route)

    def run(self, *arguments: str, **settings: object) -> int:
        """A Python module, with these settings of Darkroom and variables of others. Its process."""
        given = {n if n.isupper() else f"DARKROOM_{n.upper()}": str(v) for n, v in settings.items()}
        with self._log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [*self.before, sys.executable, "-m", *arguments],
                    cwd=self._folder,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"PYTHONPATH": str(ROOT)} | given,
                )
            )
        return self._processes[-1].pid

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.name}.log"

    @property
    def said(self) -> str:
        """By all that was run there."""
        return self._log.read_text()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        _ip("netns", "del", self._space)


class Network:
    """A switch, and the hosts on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"darkroom{os.getpid()}"
        self.switch = f"{self.name}-switch"
        self._hosts: list[Host] = []
        _expect(self.switch)
        _ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "bridge", "up")
        here = f"dr{os.getpid()}"
        _ip("link", "add", here, "type", "veth", "peer", "name", "here", "netns", self.switch)
        _ip("-n", self.switch, "link", "set", "here", "master", "bridge", "up")
        _ip("addr", "add", f"{self.address(OURS)}/24", "dev", here)
        _ip("link", "set", here, "up")

    def address(self, number: int) -> str:
        """Of the range that RFC 2544 keeps for tests; processes beside this one have others."""
        high, low = divmod(os.getpid() % 512, 256)
        return f"198.{18 + high}.{low}.{number}"

    def host(self, name: str) -> Host:
        """One more."""
        self._hosts.append(Host(self, name, len(self._hosts) + 1))
        return self._hosts[-1]

    def close(self) -> None:
        """All of them; the cable to this process goes with the switch."""
        for host in self._hosts:
            host.close()
        _ip("netns", "del", self.switch)


def _cable(end: str, other: str, space: str) -> tuple[str, ...]:
    return ("link", "add", end, "type", "veth", "peer", "name", other, "netns", space)


def _expect(space: str) -> None:
    """Makes the first one, or skips where that cannot be."""
    if shutil.which("ip") is None:
        pytest.skip("hosts of their own need `ip`: apt install iproute2")
    made = subprocess.run(["ip", "netns", "add", space], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"hosts of their own need root and network namespaces: {made.stderr.strip()}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
