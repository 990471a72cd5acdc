"""One picture at a time: steps a second, end to end, its parts, and where the device idles."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.gpu import bars
from benchmarks.gpu.bare import side_by_side
from benchmarks.gpu.desk import Desk, Picture, desk
from benchmarks.gpu.device import profiled, seconds
from benchmarks.gpu.run import Run
from benchmarks.gpu.subject import Subject, prepared_seconds, request
from benchmarks.timing import median_ratio
from server.models.memory import MemoryGauge

PHASES = ("encode", "denoise", "decode", "publish")
LONGEST = 20
"""Kernels that are written down."""
TOGETHER = 16
"""Rows of the steps between which the device is not expected to idle."""


def one_picture(run: Run, name: str) -> None:
    """All that is measured of a picture alone."""
    subject = run.subject(name)
    _steps(run, subject)
    _end_to_end(run, subject)
    _parts(run, subject)
    _idle(run, subject, 2, bars.IDLE)
    _idle(run, subject, TOGETHER, f"idle between steps of {TOGETHER} rows")


def _steps(run: Run, subject: Subject) -> None:
    name = subject.model.name
    engine, bare = side_by_side(run, subject, 2)
    rate, alone = (1 / statistics.median(each) for each in (engine, bare))
    done = run.share(rate * run.flops(name).step())
    run.report.add(bars.STEPS_PER_SECOND, name, rate, "it/s", f"{done}; bare UNet {alone:.4g} it/s")
    ratio = median_ratio(engine, bare)
    run.report.add("a step over a bare UNet call, one picture", name, ratio, "x")


def _end_to_end(run: Run, subject: Subject) -> None:
    name = subject.model.name
    memory = MemoryGauge(subject.device)
    memory.begin()
    with desk(subject) as studio:
        studio.draw(request(subject.model, num_inference_steps=run.lengths.steps[0]))
        for steps in run.lengths.steps:
            pictures = _drawn(studio, subject, steps, run.lengths.rounds)
            value = statistics.median(picture.seconds for picture in pictures)
            floor = run.flops(name).picture(steps) / run.ceiling
            detail = f"{_phases(pictures)}; {floor / value:.1%} of what the arithmetic allows"
            run.report.add(bars.END_TO_END.format(steps), name, value, "s", detail)
    told_of_memory(run, subject, memory, "one picture")


def told_of_memory(run: Run, subject: Subject, memory: MemoryGauge, when: str) -> None:
    """The most that was in use since the gauge began, beside what lay there."""
    grown = memory.grown_bytes() / 1e9
    weights = f"weights {subject.weights_bytes / 1e9:.3g} GB"
    run.report.add(f"memory beside the weights, {when}", subject.model.name, grown, "GB", weights)


def _drawn(studio: Desk, subject: Subject, steps: int, number: int) -> list[Picture]:
    spec = (request(subject.model, num_inference_steps=steps) for _ in range(number))
    return [studio.draw(each) for each in spec]


def _phases(pictures: Sequence[Picture]) -> str:
    """Where the time of these went, in milliseconds."""
    medians = {
        phase: statistics.median(getattr(p.drawn.metrics, f"{phase}_seconds") for p in pictures)
        for phase in PHASES
    }
    return ", ".join(f"{phase} {1000 * each:.3g} ms" for phase, each in medians.items())


def _parts(run: Run, subject: Subject) -> None:
    name, device = subject.model.name, subject.device
    encode = [prepared_seconds(subject) for _ in range(run.lengths.rounds + 1)][1:]
    state = subject.ticket(request(subject.model)).state
    decode = [
        seconds(lambda: subject.denoiser.decode([state]), device)
        for _ in range(run.lengths.rounds + 1)
    ][1:]
    value = statistics.median(decode)
    done = run.share(run.flops(name).decode / value)
    run.report.add(bars.DECODE, name, 1000 * value, "ms", done)
    detail = "prompt and negative prompt, new ones, and the noise"
    run.report.add("encode of one picture", name, 1000 * statistics.median(encode), "ms", detail)


def _idle(run: Run, subject: Subject, rows: int, what: str) -> None:
    """Kernels' own time under the profiler, over the time that the same steps take without it."""
    calls = run.calls(subject, rows)
    whole = subject.stepping(rows, calls).seconds()
    seen = profiled(subject.stepping(rows, calls), subject.device)
    share = max(0.0, 1 - seen.busy_seconds / whole)
    busy, wall = (1000 * each / calls for each in (seen.busy_seconds, whole))
    detail = f"busy {busy:.3g} of {wall:.3g} ms a step"
    run.report.add(what, subject.model.name, 100 * share, "%", detail)
    longest = list(seen.kernels.items())[:LONGEST]
    run.report.profiles[f"{subject.model.name}, steps of {rows} rows"] = [
        {"kernel": kernel, "times a step": times / calls, "ms a step": 1000 * took / calls}
        for kernel, (times, took) in longest
    ]
