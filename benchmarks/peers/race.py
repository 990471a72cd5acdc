"""Rounds in which all peers meet the same loads, in turn."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.peers.client import Exact, Run, check, offer, pixels
from benchmarks.peers.contestants import DARKROOM, LOCK
from benchmarks.peers.loads import MIXED, USUAL, Course, Load, at_once
from benchmarks.peers.meter import Tree
from benchmarks.peers.orders import Order
from benchmarks.peers.places import Checkpoint, Peer, Place

BARE = "bare loop"
NEEDED = (DARKROOM, LOCK)
WARM = 8
"""Orders of each wave that everybody draws before it counts."""
HOPELESS = 0.5
"""Of the serial capacity: whoever draws fewer when all are alike would only pile up others."""
AWAKE_SECONDS = 1.0
"""Before it gets something to do, so that its processes know of each other again."""
WAVES = 3
"""Of the server with the lock, to learn the serial capacity."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """What one peer made of one load in one round."""

    peer: str
    load: str
    share: float
    """Of the serial capacity; 0 where all came at once."""
    round: int
    seconds: float
    """From the first arrival until the last answer."""
    latencies: list[float]
    """Of the orders that were drawn."""
    previews: list[float]
    """Seconds to the first preview, of those who were shown one."""
    cpu_seconds: float
    peak_bytes: int
    errors: list[str]

    @property
    def pictures_a_second(self) -> float:
        """Of those that were right."""
        return len(self.latencies) / self.seconds


@dataclass(frozen=True, slots=True)
class Runner:
    """A peer and its server."""

    peer: Peer
    place: Place

    def sleep(self) -> None:
        """All its processes stand still: what a server does by itself is not done at the expense
        of whose turn it is."""
        Tree(self.place.pids).send(signal.SIGSTOP)

    def wake(self) -> None:
        """They go on."""
        Tree(self.place.pids).send(signal.SIGCONT)


@dataclass(slots=True)
class Race:
    """All that was found out."""

    checkpoint: str
    capacity: float
    """Pictures a second of the server with the lock."""
    entries: list[Entry] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Who could not be had, and why."""


def race(
    checkpoint: Checkpoint, course: Course, peers: Mapping[str, Peer], rounds: int, say: Say
) -> Race:
    """Everybody's server is there all the time, but all processes of those whose turn it is not
    stand still. Who cannot be had is left out and said; those whom the bars are about have to be
    there."""
    waves = course.waves(rounds)
    exact = _exact(checkpoint, waves)
    with contextlib.ExitStack() as stack:
        runners, missing = _open(stack, checkpoint, peers, say)
        for runner in runners.values():
            for wave in waves:
                _run(runner, at_once("warm", wave.orders[:WARM]), exact)
        found = Race(checkpoint.name, _capacity(runners[LOCK], waves[0], exact), [], missing)
        say(f"serial capacity: {found.capacity:.2f} pictures a second")
        for number in range(rounds):
            for entry in _round(checkpoint, course, runners, found.capacity, number):
                found.entries.append(entry)
                say(_line(entry, rounds))
    return found


def _open(
    stack: contextlib.ExitStack, checkpoint: Checkpoint, peers: Mapping[str, Peer], say: Say
) -> tuple[dict[str, Runner], dict[str, str]]:
    runners, missing = {}, {}
    for name, peer in peers.items():
        say(f"starting {name}")
        try:
            runner = Runner(peer, stack.enter_context(peer.open(checkpoint)))
            stack.callback(runner.wake)  # else it could not end
            runner.sleep()
            runners[name] = runner
        except (RuntimeError, subprocess.CalledProcessError, httpx.HTTPError) as error:
            if name in NEEDED:
                raise
            missing[name] = str(error)
            say(f"{name} is left out: {error}")
    return runners, missing


def bare(checkpoint: Checkpoint, orders: Sequence[Order]) -> tuple[dict[str, Any], list[bytes]]:
    """What one pipeline call for each takes in a process of its own, and the pictures."""
    command = [sys.executable, "-m", "benchmarks.peers.bare", str(checkpoint.folder)]
    said = json.dumps([order.body() for order in orders])
    done = subprocess.run(command, input=said, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the bare loop failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found, [base64.b64decode(picture) for picture in found["pictures"]]


def turns(names: Sequence[str], number: int) -> list[str]:
    """Each round begins with another one, so that nobody always comes after the same."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def _round(
    checkpoint: Checkpoint,
    course: Course,
    runners: Mapping[str, Runner],
    capacity: float,
    number: int,
) -> Iterator[Entry]:
    loads = course.loads(capacity, number)
    exact = _exact(checkpoint, loads)
    yield _bare_entry(checkpoint, loads[0].orders, number)
    names = turns(list(runners), number)
    for load in loads:
        for name in list(names):
            entry = _entry(name, load, number, _run(runners[name], load, exact))
            yield entry
            if load.name == USUAL and name not in NEEDED and _hopeless(entry, capacity):
                names.remove(name)


def _hopeless(entry: Entry, capacity: float) -> bool:
    return entry.pictures_a_second < HOPELESS * capacity


def _exact(checkpoint: Checkpoint, loads: Sequence[Load]) -> Exact:
    """What the pictures have to look like."""
    orders = [order for load in loads for order in load.orders]
    return dict(zip(orders, map(pixels, bare(checkpoint, orders)[1]), strict=True))


def _run(runner: Runner, load: Load, exact: Exact) -> Run:
    runner.wake()
    time.sleep(AWAKE_SECONDS)
    run = asyncio.run(offer(runner.peer, runner.place, load))
    runner.sleep()
    check(run, exact)
    return run


def _capacity(runner: Runner, wave: Load, exact: Exact) -> float:
    seconds = [_run(runner, wave, exact).seconds for _ in range(WAVES)]
    return len(wave.orders) / statistics.median(seconds)


def _bare_entry(checkpoint: Checkpoint, orders: Sequence[Order], number: int) -> Entry:
    found, pictures = bare(checkpoint, orders)
    return Entry(
        peer=BARE,
        load=MIXED,
        share=0.0,
        round=number,
        seconds=found["seconds"],
        latencies=[found["seconds"] / len(pictures)] * len(pictures),
        previews=[],
        cpu_seconds=found["cpu_seconds"],
        peak_bytes=found["peak_bytes"],
        errors=[],
    )


def _entry(name: str, load: Load, number: int, run: Run) -> Entry:
    right = [visit for visit in run.visits if not visit.error]
    return Entry(
        peer=name,
        load=load.name,
        share=load.share,
        round=number,
        seconds=run.seconds,
        latencies=[visit.seconds for visit in right],
        previews=[v.preview_seconds for v in right if v.preview_seconds is not None],
        cpu_seconds=run.cost.cpu_seconds,
        peak_bytes=run.cost.peak_bytes,
        errors=[visit.error for visit in run.visits if visit.error],
    )


def _line(entry: Entry, rounds: int) -> str:
    errors = f", {len(entry.errors)} errors: {entry.errors[0]}" if entry.errors else ""
    return (
        f"round {entry.round + 1} of {rounds}, {entry.load}: {entry.peer}"
        f" {entry.seconds:.1f} s, {entry.pictures_a_second:.2f}/s{errors}"
    )
