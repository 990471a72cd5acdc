"""What was used last, as much of it as may be kept. Knows not what it is."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that takes memory."""

    @property
    def nbytes(self) -> int:
        """How much."""


T = TypeVar("T", bound=Sized)


@dataclass(slots=True)
class Tally:
    """How often what was asked for was kept already, and how often it was not."""

    hits: int = 0
    misses: int = 0

    def count(self, hit: bool) -> None:
        """Once more. Under the lock of whom it counts for."""
        self.hits += hit
        self.misses += not hit


class Recent(Generic[T]):
    """A cache bounded by number and by bytes; the newest is always kept. May be called from
    several threads, of which one at a time makes something, and the others get and clear
    meanwhile."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self.tally = Tally()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under this key, or was just made; what `make` raises goes through."""
        found = self._found(key)
        with self._lock:
            self.tally.count(found is not None)
        if found is not None:
            return found
        with self._making:
            found = self._found(key)  # somebody else has made it meanwhile
            if found is None:
                found = make()
            with self._lock:
                self._kept[key] = found
                self._kept.move_to_end(key)
                self._drop()
            return found

    def clear(self) -> None:
        """Keep nothing of what there is now."""
        with self._lock:
            self._kept.clear()

    def _found(self, key: Hashable) -> T | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _drop(self) -> None:
        held = sum(each.nbytes for each in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > self._most or held > self._most_bytes):
            _, dropped = self._kept.popitem(last=False)
            held -= dropped.nbytes
