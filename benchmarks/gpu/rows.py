"""Step time against rows: what sharing a call gains, and where it stops to."""

from __future__ import annotations

import statistics

import torch

from benchmarks.gpu.bare import side_by_side
from benchmarks.gpu.run import Run
from server.errors import OutOfMemory

ROWS = (1, 2, 4, 8, 16, 32)
PLOT = "milliseconds a step, by rows"


def curve(run: Run, name: str) -> None:
    """The engine's steps and bare UNet calls, for every row count that fits."""
    subject = run.subject(name)
    engine: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    for rows in ROWS:
        try:
            times = side_by_side(run, subject, rows)
        except (OutOfMemory, torch.OutOfMemoryError):
            run.report.leave_out(f"{name}: steps of {rows} rows", "they do not fit the device")
            break
        ours, theirs = (1000 * statistics.median(each) for each in times)
        engine.append((rows, ours))
        bare.append((rows, theirs))
        done = run.share(1000 * run.flops(name).step(rows) / ours)
        detail = f"{done}; bare UNet {theirs:.4g} ms"
        run.report.add(f"a step of {rows} rows", name, ours, "ms", detail)
    run.report.trace(PLOT, f"{name}, engine", engine)
    run.report.trace(PLOT, f"{name}, bare UNet", bare)
    _gain(run, name, dict(engine))


def _gain(run: Run, name: str, engine: dict[float, float]) -> None:
    if {2, 16} <= engine.keys():
        gain = 8 * engine[2] / engine[16]
        run.report.add("images by eight a step over one a step", name, gain, "x")
    speed = run.subject(name).speed
    detail = f"so the warm-up says; it predicts {1000 * speed.step_seconds(2):.4g} ms for two rows"
    run.report.add("rows that share a step", name, speed.full_rows, "", detail)
