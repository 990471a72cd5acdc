"""What a race comes to: a table, and figures against bars. Knows no server."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.peers.contestants import DARKROOM, GROUPS, LITSERVE, LOCK
from benchmarks.peers.loads import BUSIEST as BUSIEST_SHARE
from benchmarks.peers.loads import MIXED, USUAL, share_name
from benchmarks.peers.race import BARE, Entry, Race
from benchmarks.timing import Figure, at_least, at_most, median_ratio

BUSIEST = share_name(BUSIEST_SHARE)
THROUGHPUT_BAR, P95_BAR = 1.3, 0.2


@dataclass(frozen=True, slots=True)
class Row:
    """A peer under a load: medians over the rounds."""

    peer: str
    load: str
    share: float
    pictures_a_second: float
    p50: float
    p95: float
    p99: float
    preview_p50: float | None
    """Until the first preview, of a peer that has them."""
    cpu_seconds: float
    """For each picture."""
    peak_bytes: int
    errors: int
    """Of all rounds."""


def percentile(entry: Entry, percent: float) -> float:
    """Of one round's latencies, between its neighbours; not a number where nothing was drawn."""
    return float(np.percentile(entry.latencies, percent)) if entry.latencies else float("nan")


def rows(race: Race) -> list[Row]:
    """Load by load, all peers."""
    peers = list(dict.fromkeys(entry.peer for entry in race.entries))
    both = ((peer, load) for load in loads(race) for peer in peers)
    return [row(found) for peer, load in both if (found := entries(race, peer, load))]


def loads(race: Race) -> list[str]:
    """In the order they were offered."""
    return list(dict.fromkeys(entry.load for entry in race.entries))


def row(found: Sequence[Entry]) -> Row:
    """Of one peer's rounds under one load."""
    previews = [statistics.median(entry.previews) for entry in found if entry.previews]
    drawn = [entry for entry in found if entry.latencies]
    cpu = [entry.cpu_seconds / len(entry.latencies) for entry in drawn]
    return Row(
        peer=found[0].peer,
        load=found[0].load,
        share=found[0].share,
        pictures_a_second=statistics.median(entry.pictures_a_second for entry in found),
        p50=_waited(drawn, 50),
        p95=_waited(drawn, 95),
        p99=_waited(drawn, 99),
        preview_p50=statistics.median(previews) if previews else None,
        cpu_seconds=statistics.median(cpu) if cpu else float("nan"),
        peak_bytes=max(entry.peak_bytes for entry in found),
        errors=sum(len(entry.errors) for entry in found),
    )


def _waited(drawn: Sequence[Entry], percent: float) -> float:
    """Not a number where there was no server to wait for, or nothing was drawn in any round."""
    found = [percentile(entry, percent) for entry in drawn if entry.peer != BARE]
    return statistics.median(found) if found else float("nan")


def entries(race: Race, peer: str, load: str) -> list[Entry]:
    """One for each round, in order."""
    return [entry for entry in race.entries if (entry.peer, entry.load) == (peer, load)]


def table(race: Race) -> str:
    """For a person, load by load."""
    head = ("images/s", "p50 s", "p95 s", "p99 s", "preview s", "CPU s each", "MB", "errors")
    lines = [" " * 24 + "".join(f"{word:>12}" for word in head)]
    for load in loads(race):
        lines.append(load)
        lines += [_line(each) for each in rows(race) if each.load == load]
    return "\n".join(lines)


def _line(row: Row) -> str:
    served = row.peer != BARE
    figures = (
        f"{row.pictures_a_second:.2f}",
        *(f"{seconds:.2f}" if served else "" for seconds in (row.p50, row.p95, row.p99)),
        "" if row.preview_p50 is None else f"{row.preview_p50:.2f}",
        f"{row.cpu_seconds:.2f}",
        f"{row.peak_bytes / 2**20:.0f}",
        str(row.errors),
    )
    return f"  {row.peer:<22}" + "".join(f"{figure:>12}" for figure in figures)


def figures(race: Race) -> Iterator[Figure]:
    """Against their bars. Who was not there, or drew nothing in some round, has none."""
    for peer in (LITSERVE, GROUPS):
        if _drew(race, peer):
            yield _throughput(race, peer)
    waits = {
        peer: [percentile(entry, 95) for entry in entries(race, peer, BUSIEST)]
        for peer in (DARKROOM, LOCK)
    }
    detail = ", ".join(f"{peer} {statistics.median(p95):.2f} s" for peer, p95 in waits.items())
    yield at_most(
        f"p95 at 90 % of serial capacity over a lock's, {race.checkpoint}",
        median_ratio(waits[DARKROOM], waits[LOCK]),
        P95_BAR,
        "x",
        f"{detail}; serial capacity {race.capacity:.2f} pictures/s",
    )
    wrong = sum(len(entry.errors) for entry in race.entries if entry.peer == DARKROOM)
    yield at_most(f"errors and wrong pictures of Darkroom, {race.checkpoint}", wrong, 0, "")


def _drew(race: Race, peer: str) -> bool:
    found = [*entries(race, peer, MIXED), *entries(race, peer, USUAL)]
    return bool(found) and all(entry.latencies for entry in found)


def _throughput(race: Race, peer: str) -> Figure:
    usual = _gain(race, peer, USUAL)
    return at_least(
        f"mixed generations at once, over {peer}, {race.checkpoint}",
        _gain(race, peer, MIXED),
        THROUGHPUT_BAR,
        "x",
        f"{usual:.2f}x where all are alike",
    )


def _gain(race: Race, peer: str, load: str) -> float:
    speeds = (
        [entry.pictures_a_second for entry in entries(race, each, load)]
        for each in (DARKROOM, peer)
    )
    return median_ratio(*speeds)
