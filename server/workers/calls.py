"""Calls to the device that are in progress, timed: one that never returns must not go unnoticed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Calls:
    """Shared by all threads that call the device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: dict[object, float] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """What runs in this block is a call."""
        call = object()
        with self._lock:
            self._began[call] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._began[call]

    def age(self) -> float:
        """Seconds that the longest of them has taken so far; 0 when there is none."""
        with self._lock:
            oldest = min(self._began.values(), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest
