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
from server.forecast import OPTIMISM, UNKNOWN_SECONDS
from server.spec import AnySpec, GenerationState
from server.stages import UPSCALED, Stage, stages

LOOK_SECONDS = 1.0
"""How old a look at a queue may be that a prediction is made from."""

SIDE = 8
"""Sides that are named to a caller are multiples of so many pixels."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a generation takes, and when it would be done."""

    works: tuple[float, ...]
    """Seconds of a busy worker, for each stage."""
    drawing: float | None
    """Seconds from when its first stage begins, until it is done; None where nobody has measured.
    """
    workers: int
    """That can draw its first stage."""
    in_hand: float
    """Seconds of work that those have in their hands."""
    slack: float
    """Seconds of work that may still be ahead of its first stage when that begins."""

    def seconds(self, ahead: float) -> float | None:
        """Until it is done, with so many seconds of work ahead of it in the queue."""
        if self.drawing is None:
            return None
        return forecast.wait(ahead + self.in_hand, self.workers, self.slack) + self.drawing


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
        works, drawing, waiting = [], 0.0, 0.0
        known = True
        for number, stage in enumerate(drawn):
            queue = queues[stage.checkpoint]
            speeds = queue.speeds
            if not speeds:
                known = False
                works.append(UNKNOWN_SECONDS)
                continue
            works.append(forecast.together([forecast.work(stage, speed) for speed in speeds]))
            drawing += forecast.duration(stage, speeds[0], queue.step_rows)
            if number:
                slack = forecast.slack(stage, speeds[0])
                waiting += forecast.wait(queue.work_seconds, queue.ready, slack)
        first = queues[drawn[0].checkpoint]
        return Prospect(
            works=tuple(works),
            drawing=drawing + waiting if known else None,
            workers=max(1, first.ready),
            in_hand=first.work_seconds,
            slack=forecast.slack(drawn[0], first.speeds[0]) if first.speeds else 0.0,
        )

    def terms(self, prospect: Prospect, deadline_seconds: float) -> Terms:
        """On which it is accepted, so that it need not wait too long, nor past its deadline."""
        workers = prospect.workers
        spare = deadline_seconds / OPTIMISM - (prospect.drawing or 0.0) + prospect.slack
        return Terms(
            waiting=self._max_queued,
            workers=workers,
            max_seconds=self._max_queued_seconds * workers,
            latest_seconds=spare * workers - prospect.in_hand,
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

    async def eta_seconds(self, generation: Generation, place: Place | None) -> float | None:
        """Until it is done; None where that cannot be told."""
        if generation.status is GenerationState.RUNNING:
            return _rest_seconds(generation, time.time())
        if place is None:
            return None
        try:
            drawn = stages(generation.spec)[generation.stage_number :]
            seconds = (await self.prospect(drawn)).seconds(place.seconds)
        except BrokerUnavailable:  # It was accepted: a missing prediction must not undo the answer.
            return None
        return None if seconds is None else round(seconds, 3)

    async def _look(self, checkpoints: Sequence[str]) -> dict[str, QueueInfo]:
        now = time.monotonic()
        old = [
            name
            for name in dict.fromkeys(checkpoints)
            if name not in self._looks or now - self._looks[name][0] > LOOK_SECONDS
        ]
        if old:
            for queue in await self._broker.queues(old):
                self._looks[queue.checkpoint] = now, queue
        return {name: self._looks[name][1] for name in checkpoints}


def admissible(spec: AnySpec, prospect: Prospect) -> None:
    """Nothing, where it might be done in time if nobody else were there.

    Raises:
        InvalidSpec: its deadline is too close.
    """
    seconds = prospect.drawing
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
