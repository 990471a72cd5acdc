"""What the script of acceptance says no with, in words."""

from __future__ import annotations

import math
import time

from server.broker import keys
from server.broker.record import Generation
from server.errors import (
    DarkroomError,
    DeadlineUnmeetable,
    IdempotencyConflict,
    NoWorker,
    QueueFull,
    QuotaExceeded,
)
from server.forecast import Demand

SHORTEST_SECONDS = 1.0


def refusal(verdict: str, about: str, fresh: Generation, demand: Demand) -> DarkroomError:
    """The error of a verdict. `about` is what the script adds: a checkpoint, seconds or a count."""
    checkpoint = fresh.spec.checkpoint
    match verdict:
        case "conflict":
            return IdempotencyConflict("this Idempotency-Key was used before with another body")
        case "unserved":
            return NoWorker(f"no worker serves {about!r} at the moment", retry_after=5.0)
        case "late":
            seconds = _some(float(about))
            return DeadlineUnmeetable(
                f"so much waits for {checkpoint!r} that this would not be done within "
                f"{fresh.spec.deadline_seconds:g} seconds; allow it {math.ceil(seconds)} more or "
                "come back in that time, or ask for fewer steps or images or a smaller size",
                retry_after=seconds,
            )
        case "owner_living":
            return QuotaExceeded(
                f"{float(about):.0f} of your generations are queued or running, which is as many "
                "as your key allows at once; wait until one of them is done, or cancel one",
                # As if they were like this one: in a full worker one ends after another.
                retry_after=_some((demand.shared or demand.work) / float(about)),
            )
        case "owner_seconds":
            seconds = _some(float(about))
            return QuotaExceeded(
                f"your key allows no more to wait for {checkpoint!r} at once; come back in "
                f"{math.ceil(seconds)} seconds, or cancel some of it",
                retry_after=seconds,
            )
        case "owner_daily":
            return QuotaExceeded(
                f"your key has had {float(about):.3g} seconds of drawing today and this is more "
                "than is left of its day, which ends at midnight UTC; ask for fewer steps or "
                "images, or a smaller size",
                retry_after=keys.DAY_SECONDS - time.time() % keys.DAY_SECONDS,
            )
        case _:
            seconds = _some(float(about))
            return QueueFull(
                f"as much waits for {checkpoint!r} as may wait at once; there will be room for "
                f"this in {math.ceil(seconds)} seconds",
                retry_after=seconds,
            )


def _some(seconds: float) -> float:
    return max(SHORTEST_SECONDS, seconds)
