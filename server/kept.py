"""What a worker's models keep, as metrics that are read when the page is. Knows no models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Tally(Protocol):
    """How often something was kept already, and how often not."""

    hits: int
    misses: int


class Upkeep(Protocol):
    """What a worker's models keep. Both may be asked on any thread."""

    def caches(self) -> Mapping[str, Sequence[Tally]]:
        """By what is kept."""

    def memory_bytes(self) -> Mapping[str, int]:
        """By part of the model, and what else there is."""


class Kept(Collector):
    """Asks each time."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def collect(self) -> Iterator[Metric]:
        """All of it, as it is now."""
        requests = CounterMetricFamily(
            "darkroom_cache_requests",
            "Prompts, LoRAs and autoencoders asked for, by whether they were kept already.",
            labels=["cache", "result"],
        )
        for cache, tallies in self._upkeep.caches().items():
            requests.add_metric([cache, "hit"], sum(tally.hits for tally in tallies))
            requests.add_metric([cache, "miss"], sum(tally.misses for tally in tallies))
        yield requests
        memory = GaugeMetricFamily(
            "darkroom_device_memory_bytes",
            "Of the device (of the process on a CPU): weights by part of the model, what else is "
            "held, and what is free.",
            labels=["part"],
        )
        for part, size in self._upkeep.memory_bytes().items():
            memory.add_metric([part], size)
        yield memory
