"""Faults on the way to Redis: a pause before EXEC, a reply that never comes."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis

T = TypeVar("T")


class GatedRedis(Redis):
    """Once armed, the next EXEC waits at a gate, with everything read and nothing written."""

    gate: Gate | None = None

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        pipe = super().pipeline(*args, **kwargs)
        execute = pipe.execute

        def gated(*args: Any, **kwargs: Any) -> Any:
            gate, self.gate = self.gate, None
            if gate:
                gate.reached.set()
                assert gate.opened.wait(10)
            return execute(*args, **kwargs)

        pipe.execute = gated  # type: ignore[method-assign]
        return pipe


class Gate:
    """Runs a change on a thread up to its EXEC; `open` lets it pass and returns its outcome."""

    def __init__(self, redis: GatedRedis, change: Callable[[], Any]) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._outcome: Any = None
        redis.gate = self
        self._thread = threading.Thread(target=self._run, args=(change,), daemon=True)
        self._thread.start()
        assert self.reached.wait(10)

    def open(self) -> Any:
        self.opened.set()
        self._thread.join(10)
        return self._outcome

    def _run(self, change: Callable[[], Any]) -> None:
        self._outcome = change()


class Proxy:
    """Stands between a client and Redis. Armed, it delivers the next EXEC and swallows its reply:
    the client sees its connection close and cannot know what happened."""

    def __init__(self, target: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="darkroom-")
        self._target = target
        path = str(Path(self._folder.name) / "proxy.sock")
        self.url = f"unix://{path}"
        self.swallow = 0
        self.swallowed = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                redis = socket.socket(socket.AF_UNIX)
                redis.connect(self._target)
                for pump in (self._requests, self._replies):
                    threading.Thread(target=pump, args=(client, redis), daemon=True).start()

    def _requests(self, client: socket.socket, redis: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                last = self.swallow > 0 and data.endswith(b"$4\r\nEXEC\r\n")
                if last:
                    self.swallow -= 1
                    self.swallowed += 1
                    client.shutdown(socket.SHUT_RDWR)
                redis.sendall(data)
            redis.shutdown(socket.SHUT_WR)

    def _replies(self, client: socket.socket, redis: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := redis.recv(65536):
                client.sendall(data)
        client.close()
        redis.close()
