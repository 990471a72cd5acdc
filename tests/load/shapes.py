"""How many users there are, as functions of time. Knows no locust."""

from __future__ import annotations

import math
from collections.abc import Callable

RISEN = 0.75
BEFORE_SPIKE, AFTER_SPIKE = 0.4, 0.6
ALWAYS_THERE = 0.25
SOAKED = 0.05

Shape = Callable[[float], float]
"""The share of the users who are there after a share of the time."""


def ramp(time: float) -> float:
    """Ever more, and the last quarter of the time all of them."""
    return min(1.0, time / RISEN)


def spike(time: float) -> float:
    """A quarter of them; all at once for a fifth of the time; then a quarter again."""
    return 1.0 if BEFORE_SPIKE <= time < AFTER_SPIKE else ALWAYS_THERE


def soak(time: float) -> float:
    """All of them, after a short rise, for as long as it takes."""
    return min(1.0, time / SOAKED)


SHAPES: dict[str, Shape] = {"ramp": ramp, "spike": spike, "soak": soak}


def users(shape: Shape, most: int, seconds: float, whole: float) -> int | None:
    """So many are there after these seconds of so many; None when it is over."""
    if seconds >= whole:
        return None
    return max(1, math.ceil(most * shape(seconds / whole)))
