"""Real redis-servers on TCP for tests: with TLS, with replicas, and Sentinels that watch them."""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis import Redis
from redis.exceptions import RedisError

from server.embedded import find_redis_server
from tests.redis_server import executable
from tests.s3 import free_port, listens

HOST = "127.0.0.1"
MASTER = "darkroom"
DOWN_MILLISECONDS = 1000
"""A Redis that is silent for so long is down, to a Sentinel."""


def eventually(true: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value; what Redis refuses meanwhile is not yet true."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := true():
                return value
        except RedisError:
            pass
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class Authority:
    """Signs certificates, and keeps them as files."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self._folder = folder
        self.file = folder / f"{secrets.token_hex(4)}.ca"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, *hosts: str) -> Path:
        """A certificate with its key, in one file."""
        path = self._folder / f"{secrets.token_hex(4)}.pem"
        self._authority.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(path)
        return path


class Node:
    """One redis-server, or a Sentinel, as its configuration says; `kill` and `start` keep both."""

    def __init__(
        self,
        folder: Path,
        *lines: str,
        certificate: Path | None = None,
        authority: Authority | None = None,
        sentinel: bool = False,
        host: str = HOST,
        before: Sequence[str] = (),
    ) -> None:
        self.host, self.port = host, free_port()
        self._before = before
        self._home = folder / str(self.port)
        self._home.mkdir()
        self._file = self._home / "node.conf"
        self._sentinel = ["--sentinel"] if sentinel else []
        listen, self._program = [f"port {self.port}"], executable()
        if certificate and authority:
            self._program = knows_tls()
            listen = [
                "port 0",
                f"tls-port {self.port}",
                f"tls-cert-file {certificate}",
                f"tls-key-file {certificate}",
                f"tls-ca-cert-file {authority.file}",
                "tls-replication yes",
            ]
        common = [f"bind {host}", f"dir {self._home}", "loglevel warning", 'logfile "log"']
        self._file.write_text("\n".join([*listen, *common, *lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, *lines: str) -> None:
        """Before it is started."""
        with self._file.open("a") as config:
            config.write("\n".join([*lines, ""]))

    def start(self) -> Node:
        """Run, and wait until it listens."""
        command = [*self._before, self._program, str(self._file), *self._sentinel]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + 10
        while not listens(self.host, self.port):
            assert self._process.poll() is None, (self._home / "log").read_text()
            assert time.monotonic() < deadline, "it did not come up"
            time.sleep(0.01)
        return self

    @property
    def place(self) -> str:
        """As URLs name it."""
        return f"{self.host}:{self.port}"

    def client(self, **options: Any) -> Redis:
        """For who looks on."""
        return Redis(self.host, self.port, decode_responses=True, **options)

    def info(self, what: str) -> Any:
        """One value of INFO."""
        with self.client() as client:
            return client.info()[what]  # type: ignore[index]

    def send(self, signum: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT thaws it."""
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        """SIGKILL: connections break."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


class Watched:
    """A master with a replica, and three Sentinels that know each other from the start."""

    def __init__(self, folder: Path) -> None:
        data = ("appendonly yes", 'save ""', "repl-diskless-sync-delay 0")
        first = Node(folder, *data)
        self.nodes = [first, Node(folder, *data, f"replicaof {HOST} {first.port}")]
        self.sentinels = self._sentinels(folder)

    def start(self) -> None:
        """Run, and wait until they know each other."""
        for node in self.nodes:
            node.start()
        eventually(lambda: self.nodes[1].info("master_link_status") == "up")
        for sentinel in self.sentinels:
            sentinel.start()
        eventually(lambda: all(map(self._ready, self.sentinels)))

    def _sentinels(self, folder: Path) -> list[Node]:
        ids = [secrets.token_hex(20) for _ in range(3)]
        found = [Node(folder, sentinel=True) for _ in ids]
        master, replica = self.nodes
        for node, own in zip(found, ids, strict=True):
            others = [(o, id) for o, id in zip(found, ids, strict=True) if o is not node]
            node.configure(
                f"sentinel myid {own}",
                f"sentinel monitor {MASTER} {HOST} {master.port} 2",
                f"sentinel down-after-milliseconds {MASTER} {DOWN_MILLISECONDS}",
                f"sentinel failover-timeout {MASTER} 3000",
                f"sentinel known-replica {MASTER} {HOST} {replica.port}",
                *(f"sentinel known-sentinel {MASTER} {HOST} {o.port} {id}" for o, id in others),
            )
        return found

    def _ready(self, sentinel: Node) -> bool:
        with sentinel.client() as client:
            usable = str(client.execute_command("SENTINEL", "CKQUORUM", MASTER))
            [replica] = client.sentinel_slaves(MASTER)
        return usable.startswith("OK 3") and replica["master-link-status"] == "ok"

    @property
    def url(self) -> str:
        """As gateways and workers are given it."""
        places = ",".join(each.place for each in self.sentinels)
        return f"redis+sentinel://{places}/{MASTER}/0"

    @property
    def master(self) -> Node:
        """Whoever most of the Sentinels name."""
        named = [self._named(each) for each in self.sentinels]
        port = max(named, key=named.count)
        return next(node for node in self.nodes if node.port == port)

    def _named(self, sentinel: Node) -> int:
        with sentinel.client() as client:
            said: Any = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER)
        return int(said[1])

    def await_other_than(self, node: Node) -> Node:
        """The master, once it is another and every Sentinel knows."""
        eventually(lambda: all(self._named(each) != node.port for each in self.sentinels))
        return self.master

    def close(self) -> None:
        for each in (*self.sentinels, *self.nodes):
            each.kill()


def knows_tls() -> str:
    """The newest one that is there: that of the extra `embedded` was built without."""
    return find_redis_server()[0]


def expect_tls(folder: Path) -> None:
    """Skips where the redis-server that is there knows no TLS."""
    command = [knows_tls(), "--port", "0", "--tls-port", "0", "--dir", str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=10)
    if "tls-port" in said.stdout + said.stderr:  # else it finds that it listens nowhere, and ends
        pytest.skip("this redis-server was built without TLS; Debian's has it")
