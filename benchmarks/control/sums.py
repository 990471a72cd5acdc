"""What a generation costs each part of the control plane, and which part is at its end. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PARTS = ("gateway", "redis", "worker", "png", "store", "client")
"""`worker` is what workers use beside encoding and storing pictures."""
FULL = 0.9
"""A thread that uses so much of a core, or a machine so much of all cores, can do no more."""
KEPT_UP = 0.9
"""Of what is asked for; where less is done, and chance does not explain it, something is at its
end."""
SLOW_ACCEPT_SECONDS = 0.1

Moments = Sequence[tuple[float, float]]
"""When something happened, and seconds that it took."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What had been used at a moment: CPU seconds, commands, bytes."""

    at: float
    machine: float
    """By all processes there are."""
    gateways: Sequence[float]
    redis: float
    workers: Sequence[float]
    """Of each process of them, with `png` and `store`."""
    client: float
    png: float
    store: float
    commands: int
    bytes: int
    by_command: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Calls and microseconds; what a script or a transaction calls counts for both."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One load of the ladder, between two readings."""

    workers: int
    seconds: float
    """Between the readings."""
    asked: float
    """Generations a second."""
    done: float
    refused: int
    """Of all that were asked for."""
    accept: Sequence[float]
    """Seconds."""
    total: Sequence[float]
    queued: Sequence[float]
    rest: Mapping[str, float]
    """Cores that each part used while nothing was asked for,"""
    cores: Mapping[str, float]
    """and under load; `machine` is everybody together."""
    busiest: Mapping[str, float]
    """Of the processes of a part, the one that used most."""
    commands: float
    """A second."""
    bytes: float
    by_command: Mapping[str, tuple[float, float]]
    """Calls and microseconds a second."""

    def cost(self, part: str) -> float:
        """Microseconds of CPU of a generation; 0 where none was done."""
        return 1e6 * self.cores[part] / self.done if self.done else 0.0

    def limit(self, part: str) -> float | None:
        """Generations a second for each core that the part has; calculated, not measured. None
        where it has used nothing that could be seen."""
        return 1e6 / self.cost(part) if self.cost(part) else None

    @property
    def accept_p95(self) -> float:
        """Seconds."""
        return quantile(self.accept, 0.95)

    @property
    def kept_up(self) -> bool:
        """Whether what was asked for was done, and accepted in time; all of it."""
        asked = self.asked * self.seconds
        enough = KEPT_UP * asked - 2 * math.sqrt(asked)
        in_time = self.accept_p95 <= SLOW_ACCEPT_SECONDS and not self.refused
        return in_time and self.done * self.seconds >= enough


def rung(
    before: Reading,
    after: Reading,
    *,
    workers: int,
    asked: Sequence[float],
    refused: int,
    rest: Mapping[str, float],
    accepts: Moments,
    ends: Moments,
    queued: Moments,
) -> Rung:
    """What happened between two readings. `asked`: when generations were asked for."""
    seconds, cores = after.at - before.at, cores_used(before, after)
    total = within(before, after, ends)
    return Rung(
        workers=workers,
        seconds=seconds,
        asked=sum(before.at <= at < after.at for at in asked) / seconds,
        done=len(total) / seconds,
        refused=refused,
        accept=within(before, after, accepts),
        total=total,
        queued=within(before, after, queued),
        rest=rest,
        cores=cores,
        busiest={
            "gateway": _most(before.gateways, after.gateways) / seconds,
            "redis": cores["redis"],
            "worker": _most(before.workers, after.workers) / seconds,
            "client": cores["client"],
        },
        commands=(after.commands - before.commands) / seconds,
        bytes=(after.bytes - before.bytes) / seconds,
        by_command={name: _rates(before, after, name) for name in after.by_command},
    )


def cores_used(before: Reading, after: Reading) -> dict[str, float]:
    """By each part, on average; `machine` is everybody together."""
    png, store = after.png - before.png, after.store - before.store
    used = {
        "gateway": sum(after.gateways) - sum(before.gateways),
        "redis": after.redis - before.redis,
        "worker": sum(after.workers) - sum(before.workers) - png - store,
        "png": png,
        "store": store,
        "client": after.client - before.client,
        "machine": after.machine - before.machine,
    }
    return {part: each / (after.at - before.at) for part, each in used.items()}


def within(before: Reading, after: Reading, moments: Moments) -> list[float]:
    """The seconds of what happened between two readings."""
    return [seconds for at, seconds in moments if before.at <= at < after.at]


def bottleneck(rung: Rung, cores: int) -> str:
    """What keeps it from doing more, in words; empty where nothing does."""
    part = max(rung.busiest, key=lambda each: rung.busiest[each])
    if rung.busiest[part] >= FULL:
        return f"one process, of: {part}"
    if rung.cores["machine"] >= FULL * cores:
        most = max(PARTS, key=lambda each: rung.cores[each])
        others = rung.cores["machine"] - sum(rung.cores[each] for each in PARTS)
        return (
            f"the {cores} cores of the machine; of ours most by: {most} "
            f"({rung.cores[most]:.2f} cores), by others {others:.2f}"
        )
    return "" if rung.kept_up else "waiting: no process and no core is full"


def quantile(values: Sequence[float], share: float) -> float:
    """0 where there are none."""
    if len(values) < 2:
        return sum(values)
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]


def _rates(before: Reading, after: Reading, name: str) -> tuple[float, float]:
    """Calls and microseconds of a command, a second."""
    seconds, was = after.at - before.at, before.by_command.get(name, (0, 0))
    calls, microseconds = after.by_command[name]
    return (calls - was[0]) / seconds, (microseconds - was[1]) / seconds


def _most(before: Sequence[float], after: Sequence[float]) -> float:
    return max((now - then for now, then in zip(after, before, strict=True)), default=0.0)
