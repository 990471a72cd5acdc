"""When clients come. Knows no server; the same seconds for every peer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.peers.orders import Mix, Order

BUSIEST = 0.9
"""The share that a bar is about: there and at once everybody does the same work."""
FRESH = 1000
"""Seeds of a round; no two orders of a race have the same."""
MIXED, USUAL = "at once", "at once, all alike"


@dataclass(frozen=True, slots=True)
class Load:
    """Orders, and when each of them comes, whatever has become of those before."""

    name: str
    orders: Sequence[Order]
    at: Sequence[float]
    """Seconds since the beginning."""
    share: float = 0.0
    """Of the serial capacity; 0 where all come at once."""
    watched: bool = False
    """Whether some are shown previews, which others do not have to draw."""


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """So many moments of a Poisson process of this rate, in order, the same for the same seed."""
    draw, now, moments = random.Random(seed), 0.0, []
    for _ in range(count):
        now += draw.expovariate(rate)
        moments.append(now)
    return moments


def at_once(name: str, orders: Sequence[Order]) -> Load:
    """Everybody in the first moment."""
    return Load(name, orders, [0.0] * len(orders))


def share_name(share: float) -> str:
    """As reports call it."""
    return f"Poisson {100 * share:.0f} %"


@dataclass(frozen=True, slots=True)
class Course:
    """What everybody has to go through in a round."""

    mix: Mix
    shares: Mapping[float, int]
    """Of the serial capacity, and how many come. Near 1 the line takes long to grow."""
    wave: int = 32
    """How many come at once."""

    def waves(self, number: int) -> list[Load]:
        """Those of a round that come at once."""
        first = FRESH * number
        mixed, usual = self.mix.orders(self.wave, first), self.mix.usual()
        return [at_once(MIXED, mixed), at_once(USUAL, usual.orders(self.wave, first + self.wave))]

    def loads(self, capacity: float, number: int) -> list[Load]:
        """All of a round. Its number is the seed, so that rounds differ and peers do not.

        Args:
            capacity: orders a second that a serial server draws.
        """
        loads, first = self.waves(number), FRESH * number + 2 * self.wave
        for share, count in self.shares.items():
            orders, moments = (
                self.mix.orders(count, first),
                poisson(share * capacity, count, number),
            )
            loads.append(Load(share_name(share), orders, moments, share, watched=share < BUSIEST))
            first += count
        return loads
