"""What the queues look like, and what follows for a generation: when it will be done, what it
takes, and on which terms it is accepted.

Looks are kept for a second, so that predicting costs Redis next to nothing. Decides nothing: the
queue's own script does, by these terms.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from server import forecast
from server.broker import Broker, Generation, Place, QueueInfo, Terms
from server.errors import BrokerUnavailable, InvalidSpec
from server.forecast import OPTIMISM, Demand, Speed
from server.spec import AnySpec, GenerationState
from server.stages import UPSCALED, Stage, stages

LOOK_SECONDS = 1.0
"""How old a look at a queue may be that a prediction is made from."""

SIDE = 8
"""Sides that are named to a caller are multiples of so many pixels."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a generation takes, from its present stage on."""

    works: tuple[float, ...]
    """Seconds of a busy worker, for each stage."""
    demand: Demand
    """Of the first of them."""
    first: Stage
    speed: Speed | None
    """Of a worker that draws that one; None where nobody has measured."""
    later: float | None
    """Seconds that the other stages take and wait; None where nobody has measured."""

    @property
    def at_best(self) -> float | None:
        """Seconds until it is done, if nobody else were there; a worker that is slow at the moment
        counts as it was measured."""
        seconds = self.seconds(Place(0, 0.0, 0.0))
        if seconds is None or self.speed is None:
            return None
        return seconds / max(1.0, self.speed.drift)

    def seconds(self, place: Place) -> float | None:
        """Until it is done, from this place in the queue; None where that cannot be told."""
        if self.speed is None or self.later is None:
            return None
        drawing = forecast.duration(self.first, self.speed, place.company)
        return round(place.seconds + drawing + self.later, 3)


class Outlook:
    """One per gateway process.

    Args:
        max_queued: generations, and
        max_queued_seconds: predicted seconds that a generation may have to wait.
    """

    def __init__(self, broker: Broker, *, max_queued: int, max_queued_seconds: float) -> None:
        self._broker = broker
        self._max_queued = max_queued
        self._max_queued_seconds = max_queued_seconds
        self._looks: dict[str, tuple[float, QueueInfo]] = {}

    async def prospect(self, drawn: Sequence[Stage]) -> Prospect:
        """Of a generation whose stages from now on are these.

        Raises:
            BrokerUnavailable: the queues cannot be looked at.
        """
        queues = await self._look([stage.checkpoint for stage in drawn])
        first, *others = drawn
        here = queues[first.checkpoint]
        demand = forecast.demand(first, here.speeds, here.capacity)
        later = [_later(stage, queues[stage.checkpoint]) for stage in others]
        seconds = [each for _, each in later if each is not None]
        return Prospect(
            works=(demand.work, *(work for work, _ in later)),
            demand=demand,
            first=first,
            speed=here.speeds[0] if here.speeds else None,
            later=sum(seconds) if len(seconds) == len(later) else None,
        )

    def terms(self, prospect: Prospect, deadline_seconds: float) -> Terms:
        """On which it is accepted, so that it need not wait too long, nor past its deadline."""
        return Terms(
            waiting=self._max_queued,
            max_seconds=self._max_queued_seconds,
            latest_seconds=deadline_seconds / OPTIMISM - (prospect.later or 0.0),
        )

    async def fits(self, drawn: Sequence[Stage]) -> None:
        """Nothing, where some worker has the memory for each of these stages.

        Raises:
            InvalidSpec: none has; names the largest size that fits.
            BrokerUnavailable: the queues cannot be looked at.
        """
        queues = await self._look([stage.checkpoint for stage in drawn])
        for stage in drawn:
            sizes = queues[stage.checkpoint].sizes
            largest = 0 if 0 in sizes else max(sizes, default=0)
            if largest and stage.spec.width * stage.spec.height > largest:
                raise _too_large(drawn, stage, largest)

    async def foresee(self, generation: Generation) -> tuple[int | None, float | None]:
        """How many are drawn before it, and seconds until it is done; None where it does not wait,
        and where that cannot be told. What was accepted just now knows its place, so that
        answering costs no question to Redis.

        Raises:
            BrokerUnavailable: its place cannot be asked for.
        """
        if generation.place is not None:
            return generation.place.ahead, generation.eta_seconds
        if generation.status is GenerationState.RUNNING:
            attended = await self._attended(generation.checkpoint)
            return None, _rest_seconds(generation, time.time()) if attended else None
        if generation.status is not GenerationState.QUEUED:
            return None, None
        prospect = await self.prospect(stages(generation.spec)[generation.stage_number :])
        place = await self._broker.place(generation, prospect.demand)
        return (None, None) if place is None else (place.ahead, prospect.seconds(place))

    async def _attended(self, checkpoint: str) -> bool:
        """Whether any of its workers is alive: else what runs there makes no progress, and its pace
        so far says nothing, until a worker takes it over."""
        try:
            return bool((await self._look([checkpoint]))[checkpoint].workers)
        except BrokerUnavailable:
            return False

    async def _look(self, checkpoints: Sequence[str]) -> dict[str, QueueInfo]:
        now = time.monotonic()
        old = [
            name
            for name in dict.fromkeys(checkpoints)
            if name not in self._looks or now - self._looks[name][0] > LOOK_SECONDS
        ]
        for name in self._looks.keys() & set(old):  # others go by the old one meanwhile
            self._looks[name] = now, self._looks[name][1]
        if old:
            for queue in await self._broker.queues(old):
                self._looks[queue.checkpoint] = now, queue
        return {name: self._looks[name][1] for name in checkpoints}


def _later(stage: Stage, queue: QueueInfo) -> tuple[float, float | None]:
    """The work of a stage that is not the first, and the seconds that it waits and takes if its
    queue is as it is now; None where nobody has measured."""
    demand = forecast.demand(stage, queue.speeds, queue.capacity)
    if not queue.speeds:
        return demand.work, None
    crew = max(1, queue.ready)
    beside = queue.rows / crew
    if beside <= demand.company:
        return demand.work, forecast.duration(stage, queue.speeds[0], beside)
    return demand.work, queue.work_seconds / crew + demand.shared


def admissible(spec: AnySpec, prospect: Prospect) -> None:
    """Nothing, where it might be done in time if nobody else were there and nothing slowed the
    workers down.

    Raises:
        InvalidSpec: its deadline is too close.
    """
    seconds = prospect.at_best
    if seconds is not None and OPTIMISM * seconds > spec.deadline_seconds:
        raise InvalidSpec(
            f"drawing it takes about {seconds:.1f} seconds; allow it at least that, or "
            "ask for fewer steps, fewer images or a smaller size",
            field="deadline_seconds",
        )


def _too_large(drawn: Sequence[Stage], stage: Stage, largest: int) -> InvalidSpec:
    spec, first = stage.spec, drawn[0].spec
    factor = spec.width / first.width
    width, height = forecast.largest_size(spec.width, spec.height, largest, SIDE * UPSCALED)
    fits = f"{int(width / factor)}x{int(height / factor)}"
    return InvalidSpec(
        f"{spec.width}x{spec.height} needs more memory than any worker of {spec.checkpoint!r} has; "
        f"the largest size of this shape that fits is {fits}",
        field="width",
    )


def _rest_seconds(generation: Generation, now: float) -> float | None:
    """What is left of a running one, if it goes on at its pace so far."""
    done, began = generation.progress.fraction, generation.started_at
    if not done or began is None:
        return None
    return round(max(0.0, now - began) * (1 - done) / done, 3)
