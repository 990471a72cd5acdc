"""`darkroom serve`: an embedded Redis, gateways and workers, kept running until told to stop. Also
what `darkroom gateway` is where it has several processes: gateways alone.

The supervisor holds the listening socket, so a gateway that dies loses no connection that is
still waiting to be accepted. Everything it starts is a session of its own; only the supervisor
hears Ctrl-C, and stops them in order: workers finish what they draw while the gateways still
answer those who wait for it, then the gateways, then Redis.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from server.child import HOPELESS, Child, Vigil, backoff_seconds, exit_words
from server.config import Settings
from server.embedded import EmbeddedRedis, may_hold
from server.errors import DarkroomError
from server.exposition import ENDING
from server.listener import is_private, listen_aside, refuse_open_door, url_of
from server.shares import share_of_clients, share_of_cores

TICK_SECONDS = 0.1
LOOK_SECONDS = 0.5
QUICK_SECONDS = 5.0
START_ATTEMPTS = 3


class Console(Protocol):
    """How the supervisor talks to the person in front of it."""

    def say(self, text: str) -> None:
        """Something the supervisor does."""

    @property
    def line(self) -> Callable[[str, str], None] | None:
        """Takes lines, each with the name of the child that wrote it, from several threads. None:
        children write where we do."""

    def ready(self, url: str) -> None:
        """Everything answers at `url`."""


class Supervisor:
    """Runs once. `workers`: what each is for, as CHECKPOINT[@DEVICE]."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        console: Console,
        *,
        workers: Sequence[str],
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._console = console
        self._wanted = workers
        self._url = url_of(listener)
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._redis: EmbeddedRedis | None = None
        self._vigil = Vigil()
        self._redis_failures = 0
        self._redis_due_at = 0.0
        self._gateways: list[Child] = []
        self._workers: list[Child] = []
        self._sockets = Path()
        self._ready = False
        self._look_at = 0.0

    def run(self) -> None:
        """Start everything, keep it running, and return when a signal has ended all of it.

        Raises:
            DarkroomError: something does not start. Nothing is left running then either.
        """
        for signum in (signal.SIGINT, signal.SIGTERM):
            # SimpleQueue.put may be called from a signal handler; other queues may deadlock.
            signal.signal(signum, lambda received, _: self._signals.put(received))
        # Not the data directory: the path of a socket must be short.
        with _folder_for_sockets() as sockets:
            self._sockets = Path(sockets)
            try:
                self._start()
                while not self._signalled(TICK_SECONDS):
                    self._tend()
                    self._announce()
                self._drain()
            finally:
                self._end()

    def _start(self) -> None:
        if self._settings.metrics_port:
            # Else one that is taken would be told by a child again and again.
            listen_aside(self._settings).close()
        if not self._settings.redis:
            self._redis = EmbeddedRedis(self._settings.data_dir)
            self._redis.start()
            self._console.say(f"redis    started, its data is in {self._redis.folder}")
            self._settings = self._settings.model_copy(update={"redis": self._redis.url})
            refuse_open_house(self._settings)
        self._gateways = [self._gateway(number) for number in range(self._settings.gateways)]
        self._workers = [self._worker(number) for number in range(len(self._wanted))]
        for child in self._children:
            child.start()
            self._console.say(f"{child.name:<8} started, process {child.pid}")

    @property
    def _children(self) -> list[Child]:
        return [*self._gateways, *self._workers]

    def _gateway(self, number: int) -> Child:
        settings, fd = self._settings, self._listener.fileno()
        return self._child(
            f"gateway {number + 1}" if settings.gateways > 1 else "gateway",
            command("gateway", "--fd", str(fd)),
            pass_fds=[fd],
            gateways=1,
            metrics_port=0 if number else settings.metrics_port,
            **share_of_clients(settings),
        )

    def _worker(self, number: int) -> Child:
        settings = self._settings
        checkpoint, _, device = self._wanted[number].partition("@")
        return self._child(
            f"worker {number + 1}",
            command("worker", "--checkpoint", checkpoint),
            device=device or settings.device,
            metrics_port=0,
            threads=share_of_cores(settings.threads, len(self._wanted), os.cpu_count() or 1),
        )

    def _child(
        self, name: str, command: list[str], *, pass_fds: Sequence[int] = (), **settings: object
    ) -> Child:
        settings |= {"metrics_socket": self._sockets / f"{name}{ENDING}"}
        env = environment(self._settings.model_copy(update=settings))
        return Child(name, command, os.environ | env, self._console.line, pass_fds)

    def _signalled(self, seconds: float) -> bool:
        try:
            self._signals.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def _tend(self) -> None:
        """Start again what has died."""
        self._tend_redis()
        for child in self._children:
            before, status = child.pid, child.tend()
            if before is None and child.pid is not None:
                self._console.say(f"{child.name:<8} started again, process {child.pid}")
            if status is None:
                continue
            if not self._ready and (status == HOPELESS or child.failures >= START_ATTEMPTS):
                raise DarkroomError(
                    f"{child.name} does not start ({exit_words(status)}); its last lines say why"
                )
            wait = backoff_seconds(child.failures)
            self._console.say(
                f"{child.name:<8} ended: {exit_words(status)}; starting it again in {wait:.1f} s"
            )

    def _tend_redis(self) -> None:
        if self._redis is None or time.monotonic() < self._redis_due_at:
            return
        if self._redis.running:
            if self._vigil.ends(self._redis):
                self._console.say("redis    does not answer any more and is killed")
            return
        self._console.say("redis    ended; starting it again with the data it had")
        try:
            self._redis.start()
            self._redis_failures = 0
        except DarkroomError as error:
            self._redis_failures += 1
            self._redis_due_at = time.monotonic() + backoff_seconds(self._redis_failures)
            self._console.say(f"redis    {error.message}")

    def _announce(self) -> None:
        if self._ready or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        if self._serves():
            self._ready = True
            self._console.ready(self._url)

    def _serves(self) -> bool:
        if not self._workers:
            return get(self._url, "/healthz") is not None
        return ready_workers(self._url) >= len(self._workers)

    def _drain(self) -> None:
        """Let running generations finish; what waits in the queue is kept for the next start."""
        if self._workers and not self._drain_workers():
            return
        self._listener.close()
        for gateway in self._gateways:
            gateway.signal(signal.SIGTERM)
        # Who waits for a worker of ours has its answer by now; others may be sending or reading.
        slow = 0.0 if self._workers else self._settings.drain_seconds
        self._gone(self._gateways, slow + QUICK_SECONDS)

    def _drain_workers(self) -> bool:
        """Whether they ended by themselves."""
        grace = f"{self._settings.drain_seconds:g} s"
        self._console.say(
            f"stopping; what runs may finish within {grace}, the rest is drawn at the next start; "
            "Ctrl-C again to draw that then too"
        )
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        if self._gone(self._workers, self._settings.drain_seconds + QUICK_SECONDS):
            return True
        for worker in self._workers:
            worker.signal(signal.SIGTERM)  # the second: what they draw they hand back now
        return self._gone(self._workers, QUICK_SECONDS)

    def _gone(self, children: list[Child], seconds: float) -> bool:
        """Whether all ended in time and no second signal came."""
        deadline = time.monotonic() + seconds
        while [child for child in children if not child.ended()]:
            if self._signalled(TICK_SECONDS) or time.monotonic() > deadline:
                return False
        return True

    def _end(self) -> None:
        """Whatever is left is killed: its leases run out and the next start takes its work over."""
        for child in self._children:
            if not child.ended():
                self._console.say(f"{child.name:<8} is still running and is killed")
                child.signal(signal.SIGKILL)
        while [child for child in self._children if not child.ended()]:
            time.sleep(0.01)
        if self._redis is not None:
            self._redis.stop()
        self._console.say("stopped; nothing is left running")


def _folder_for_sockets() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="darkroom-", ignore_cleanup_errors=True)
    except OSError as error:
        raise DarkroomError(
            f"no folder for sockets can be made: {error}; TMPDIR names one that can be written"
        ) from error


def refuse_open_house(settings: Settings) -> None:
    """As `refuse_open_door`, by the Redis that is named, or by what our own has on disk.

    Raises:
        DarkroomError: anyone could come in, or Redis does not let us in.
    """
    from server.broker.accounts import locked_at
    from server.broker.keys import LOCKED

    if settings.redis:
        refuse_open_door(settings, locked=locked_at(settings.redis))
    elif not is_private(settings):
        refuse_open_door(settings, locked=may_hold(settings.data_dir, LOCKED))


def command(*arguments: str) -> list[str]:
    """This very Darkroom, whatever is on PATH; -P: and whatever is in the current directory."""
    return [sys.executable, "-P", "-m", "server", *arguments]


def environment(settings: Settings) -> Mapping[str, str]:
    """The settings as a child process reads them; of those that nobody has made, it reads the
    defaults."""
    values = settings.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    secret = {n: v.get_secret_value() for n, v in settings if isinstance(v, SecretStr)}
    return {f"DARKROOM_{name.upper()}": str(value) for name, value in (values | secret).items()}


def get(url: str, path: str, timeout: float = 1.0, *, also: int = 200) -> bytes | None:
    """The body of a GET, or None if the answer is not 200 (or `also`) or does not come."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status in (http.HTTPStatus.OK, also) else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def ready_workers(url: str) -> int:
    """How many workers are ready, of whatever checkpoint; also where something else is missing."""
    body = get(url, "/readyz", also=http.HTTPStatus.SERVICE_UNAVAILABLE)
    if body is None:
        return 0
    return sum(serving["ready_workers"] for serving in json.loads(body)["checkpoints"].values())
