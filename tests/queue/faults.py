"""Faults on the way to Redis: a pause before EXEC, a reply that never comes, a broken network."""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
import threading
import time
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
    """Stands between a client and Redis, as a network that can go wrong.

    Armed by `swallow`, it delivers the next EXEC and swallows its reply: the client sees its
    connection close and cannot know what happened. With `lossy`, that happens to such a share of
    all requests. It can be slow, cut, or mute: then requests arrive and no reply ever comes.
    """

    def __init__(self, target: str, dice: random.Random | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="darkroom-")
        self._target = target
        self._dice = dice or random.Random(0)
        path = str(Path(self._folder.name) / "proxy.sock")
        self.url = f"unix://{path}"
        self.swallow = 0
        self.swallowed = 0
        self.lossy = 0.0
        self.delay_seconds = 0.0
        self._cut = self._mute = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing passes, and all who try are told so at once."""
        self._cut = True
        self._break()

    def mute(self) -> None:
        """What is sent arrives; no reply comes back."""
        self._mute = True

    def heal(self) -> None:
        """All is well again; connections that have lost something are closed."""
        broken, self._mute, self._cut = self._mute, False, False
        self.lossy = self.delay_seconds = 0.0
        if broken:
            self._break()

    def close(self) -> None:
        self._listener.close()
        self._folder.cleanup()

    def _break(self) -> None:
        for pair in list(self._pairs):
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                redis = socket.socket(socket.AF_UNIX)
                try:
                    if self._cut:
                        raise ConnectionRefusedError
                    redis.connect(self._target)
                except OSError:
                    client.close()
                    redis.close()
                    continue
                self._pairs.add((client, redis))
                for pump in (self._requests, self._replies):
                    threading.Thread(target=pump, args=(client, redis), daemon=True).start()

    def _requests(self, client: socket.socket, redis: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                time.sleep(self.delay_seconds)
                if self._loses(data):
                    self.swallowed += 1
                    client.shutdown(socket.SHUT_RDWR)
                redis.sendall(data)
            redis.shutdown(socket.SHUT_WR)

    def _loses(self, data: bytes) -> bool:
        if self.swallow > 0 and data.endswith(b"$4\r\nEXEC\r\n"):
            self.swallow -= 1
            return True
        return self.lossy > 0 and self._dice.random() < self.lossy

    def _replies(self, client: socket.socket, redis: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := redis.recv(65536):
                time.sleep(self.delay_seconds)
                if not self._mute:
                    client.sendall(data)
        self._pairs.discard((client, redis))
        for end in (client, redis):  # the other thread still reads one: closing would not wake it
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
