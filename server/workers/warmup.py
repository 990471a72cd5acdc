"""What a worker measures before it says it is ready: step time against rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from server.catalog import Card
from server.errors import OutOfMemory
from server.workers.denoiser import Denoiser, State
from server.workers.native import native_inputs, native_stage
from server.workers.planner import worthwhile_rows

log = logging.getLogger("darkroom.warmup")

BUDGET_SECONDS = 10.0
REPEATS = 2


def measure_cap(
    denoiser: Denoiser, card: Card, max_rows: int, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Rows times pixels past which a step of the checkpoint's native size gains nothing.

    Doubles the rows from one guided ticket up to `max_rows`, and stops early when the next count
    would pass the time budget or does not fit. Ends with one decode, so that it too is warm.

    Raises:
        OutOfMemory: not even one ticket fits.
    """
    stage = native_stage(card)
    inputs = native_inputs(stage)
    states: list[State] = []
    curve: list[tuple[int, float]] = []
    began, tickets, most = clock(), 1, max(1, max_rows // 2)
    while tickets <= most:
        try:
            states += [denoiser.prepare(stage, i, inputs) for i in range(len(states), tickets)]
            seconds = _best_of(denoiser, states, clock)
        except OutOfMemory:
            if not curve:
                raise
            log.info("a step of %d rows does not fit", 2 * tickets)
            break
        curve.append((2 * tickets, seconds))
        log.info("a step of %d rows takes %.1f ms", 2 * tickets, 1000 * seconds)
        if clock() - began + 2 * REPEATS * seconds > BUDGET_SECONDS:
            if tickets == 1 < most:
                log.warning(
                    "too slow to measure more than one picture a step, so no two will share one; "
                    "DARKROOM_MAX_STEP_PIXELS decides otherwise"
                )
            break
        tickets *= 2
    for picture in denoiser.decode(states[:1]):
        picture.array()
    return worthwhile_rows(curve) * states[0].pixels


def _best_of(denoiser: Denoiser, states: Sequence[object], clock: Callable[[], float]) -> float:
    """The least of a few calls after one that is not counted."""
    denoiser.predict(states)
    denoiser.wait()
    times = []
    for _ in range(REPEATS):
        began = clock()
        denoiser.predict(states)
        denoiser.wait()
        times.append(clock() - began)
    return min(times)
