"""The workers of one checkpoint and their queue, event by event: arrivals, claims, stretches of
steps. Nobody is refused, canceled or late, and no worker dies. Deterministic: arrivals come in."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import NamedTuple

from server.fleet.device import Device, Tally, Ticket
from server.fleet.plan import Crew

READY = 4
"""As in the studio: one image for so many that a worker may hold is made ready meanwhile."""


class Arrival(NamedTuple):
    """A generation that is accepted then. `kind` is its place among the crew's."""

    at: float
    kind: int


@dataclass(slots=True)
class Generation:
    """What became of an arrival."""

    accepted_at: float
    kind: int
    left: int
    """Images that are not drawn yet."""
    claimed_at: float = 0.0
    answered_at: float = 0.0

    @property
    def wait_seconds(self) -> float:
        """Until a worker claimed it."""
        return self.claimed_at - self.accepted_at

    @property
    def total_seconds(self) -> float:
        """Until its pictures could be had."""
        return self.answered_at - self.accepted_at


@dataclass(slots=True)
class _Worker:
    device: Device
    room: int
    """Images that it can claim."""
    held: int = 0
    looks: bool = True
    """Whether it waits for the queue."""


def poisson(crew: Crew, count: int, seed: int) -> list[Arrival]:
    """So many arrivals, each independent of all before."""
    random = Random(f"{seed} {crew.checkpoint}")
    rates = list(itertools.accumulate(kind.rate for kind in crew.kinds))
    numbers, at, arrivals = range(len(rates)), 0.0, []
    for _ in range(count):
        at += random.expovariate(rates[-1])
        [kind] = random.choices(numbers, cum_weights=rates)
        arrivals.append(Arrival(at, kind))
    return arrivals


def simulate(
    crew: Crew, workers: int, arrivals: Sequence[Arrival], tally: Tally | None = None
) -> list[Generation]:
    """All arrivals, in their order, drawn to the end by so many workers. `tally` is theirs
    together."""
    return _Simulation(crew, workers, tally or Tally()).run(arrivals)


@dataclass(slots=True)
class _Simulation:
    crew: Crew
    number: int
    tally: Tally
    _workers: list[_Worker] = field(init=False)
    _looking: deque[int] = field(init=False)
    """Workers that wait for the queue, in the order in which Redis serves them."""
    _queue: deque[int] = field(default_factory=deque)
    _generations: list[Generation] = field(default_factory=list)
    _events: list[tuple[float, int, int, list[Ticket] | None]] = field(default_factory=list)
    """When, a number that breaks ties, which worker, and who joins it; None: its stretch ends."""
    _ties: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        room = self.crew.capacity + self.crew.capacity // READY
        speed = self.crew.speed

        @cache
        def step_seconds(rows: int, pixels: int) -> float:
            return speed.step_seconds(speed.native_rows(rows, pixels))

        decoding_seconds = cache(speed.decoding_seconds)
        self._workers = [
            _Worker(Device(speed, self.tally, step_seconds, decoding_seconds), room)
            for _ in range(self.number)
        ]
        self._looking = deque(range(self.number))

    def run(self, arrivals: Sequence[Arrival]) -> list[Generation]:
        for arrival in arrivals:
            self._until(arrival.at)
            images = self.crew.kinds[arrival.kind].stage.spec.num_images
            self._generations.append(Generation(arrival.at, arrival.kind, images))
            self._queue.append(len(self._generations) - 1)
            self._offer(arrival.at)
        self._until(math.inf)
        return self._generations

    def _until(self, moment: float) -> None:
        """All that happens before then."""
        while self._events and self._events[0][0] <= moment:
            now, _, name, joining = heapq.heappop(self._events)
            if joining is not None:
                self._join(name, joining, now)
            elif now == self._workers[name].device.ends_at:  # else it was interrupted since
                self._end(name, now)

    def _offer(self, now: float) -> None:
        """The first in the queue, to those who wait for it, in their order."""
        for _ in range(len(self._looking)):
            name = self._looking.popleft()
            self._workers[name].looks = False
            self._claim(name, now)
            if not self._queue:
                return

    def _claim(self, name: int, now: float) -> None:
        """As much as it has room for; what needs more than any has is claimed by one that is empty.
        Then it waits for more, if it has room."""
        worker, claimed = self._workers[name], list[Ticket]()
        while self._queue and worker.room > 0:
            number = self._queue[0]
            generation = self._generations[number]
            if generation.left > worker.room and worker.held:
                break
            self._queue.popleft()
            generation.claimed_at = now
            worker.room -= generation.left
            worker.held += generation.left
            claimed += self._tickets(number)
        if worker.room > 0:
            worker.looks = True
            self._looking.append(name)
        if claimed and self.crew.encode_seconds:
            self._happens(now + self.crew.encode_seconds, name, claimed)
        elif claimed:
            self._join(name, claimed, now)

    def _tickets(self, number: int) -> list[Ticket]:
        generation = self._generations[number]
        stage = self.crew.kinds[generation.kind].stage
        spec, images = stage.spec, generation.left
        return [
            Ticket(
                generation=number,
                bucket=(spec.width, spec.height),
                rows=self.crew.speed.guided_rows if spec.guided else 1,
                pixels=spec.width * spec.height,
                left=stage.expected_steps // images,
            )
            for _ in range(images)
        ]

    def _join(self, name: int, tickets: list[Ticket], now: float) -> None:
        device = self._workers[name].device
        device.admit(tickets)
        if device.idle:
            device.begin(now)
        elif not device.interrupt(now):
            return
        self._happens(device.ends_at, name)

    def _happens(self, at: float, name: int, joining: list[Ticket] | None = None) -> None:
        heapq.heappush(self._events, (at, next(self._ties), name, joining))

    def _end(self, name: int, now: float) -> None:
        worker = self._workers[name]
        for ticket in worker.device.end():
            generation = self._generations[ticket.generation]
            generation.left -= 1
            worker.room += 1
            worker.held -= 1
            if not generation.left:
                generation.answered_at = now + self.crew.publish_seconds
        if worker.looks and self._queue:  # the first in line needs more room than it had
            self._looking.remove(name)
            worker.looks = False
        if not worker.looks:
            self._claim(name, now)
        if not worker.device.idle:  # who was claimed has begun already
            return
        worker.device.begin(now)
        if not worker.device.idle:
            self._happens(worker.device.ends_at, name)
