"""`make bench-gpu`: what Darkroom does on a GPU, against bars and peers, from one run.

Work is done in the order of its importance; what does not fit the budget is named. Ends with
status 3 where there is no CUDA, and with 1 where something failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import alone, crowd, peers, plots, rows
from benchmarks.gpu import variants as others
from benchmarks.gpu.bars import MADE_FOR
from benchmarks.gpu.budget import Budget, OutOfTime
from benchmarks.gpu.checkpoints import NAMES, Model, real, tiny
from benchmarks.gpu.device import described
from benchmarks.gpu.report import Report
from benchmarks.gpu.run import QUICK, SMOKE, USUAL, Run

NO_DEVICE = 3
REPORT_SECONDS = 5.0
"""That are kept for writing down what came out."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that can be measured of a model."""

    name: str
    seconds: float
    """Left of the budget, less than which it is not begun."""
    measure: Callable[[Run, str], None]


PARTS = (
    Part("alone", 40, alone.one_picture),
    Part("saturated", 45, crowd.saturated),
    Part("rows", 30, rows.curve),
    Part("arrivals", 75, crowd.arrivals),
    Part("peer-latency", 60, peers.one_picture),
    Part("peer-throughput", 120, peers.many_pictures),
    Part("variants", 60, others.variants),
)
"""The most important first. Each is measured of every model before the next."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; the exit status."""
    options = asked_for(arguments)
    device = torch.device(options.device)
    if why := impossible(device, options.tiny):
        print(why, file=sys.stderr)
        return NO_DEVICE
    if device.type == "cpu":
        torch.set_num_threads(1)  # several threads compute here, each with a pool of its own else
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(options, device, Path(folder))
        whole = measured(run, options.parts)
    for plot in plots.save(run.report):
        run.report.say(f"plot: {plot}")
    run.report.about["device at the end"] = described(device)
    run.report.close()
    return 0 if whole else 1


def asked_for(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--models", type=_among(NAMES), default=list(NAMES), help=_listed(NAMES))
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", type=_among(names), default=names, help=_listed(names))
    parser.add_argument("--rounds", type=int, help="alternating runs for each figure")
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer rounds")
    parser.add_argument("--budget-seconds", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, help="a JSON file; plots go beside it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"))
    parser.add_argument(
        "--compile-mode",
        default="reduce-overhead",
        help="of the peers' torch.compile: default, reduce-overhead or max-autotune",
    )
    parser.add_argument("--compile", action="store_true", help="the engine with DARKROOM_COMPILE")
    parser.add_argument("--cuda-graphs", action="store_true", help="and DARKROOM_CUDA_GRAPHS")
    parser.add_argument("--compiled-dir", type=Path, help="what is compiled is kept there")
    parser.add_argument("--tiny", action="store_true", help="try the command out, measure nothing")
    return parser.parse_args(arguments)


def impossible(device: torch.device, tried_out: bool) -> str:
    """Why nothing can be measured there; empty where it can."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} finds no CUDA device here, so nothing was measured."
            " `--device cpu --tiny` tries the command out."
        )
    if device.type != "cuda" and not tried_out:
        return f"checkpoints of real size are measured on CUDA alone, not on {device} (--tiny)"
    return ""


def prepared(options: argparse.Namespace, device: torch.device, folder: Path) -> Run:
    """All that is needed to begin; says what it will measure, and on what."""
    lengths = SMOKE if options.tiny else QUICK if options.quick else USUAL
    if options.rounds:
        lengths = lengths.with_rounds(options.rounds)
    report = Report(options.out, options.tiny, described(device))
    report.say(str(report.about))
    if not options.tiny and MADE_FOR not in report.about["name"]:
        report.say(f"the bars are for an {MADE_FOR}; this is another device")
    models: dict[str, Model] = {
        name: tiny(name, folder) if options.tiny else real(name) for name in options.models
    }
    # On a CPU a compiler would be needed and time to wait for it; what is tried out is the rest.
    compiling: dict[str, Any] = {"disable": True}
    if device.type == "cuda":
        compiling = {"mode": options.compile_mode, "fullgraph": True}
    budget = Budget(options.budget_seconds - REPORT_SECONDS)
    dtype = options.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    report.about["dtype"] = dtype
    compiled_dir = options.compiled_dir or folder / "compiled"
    fitting: dict[str, Any] = {"compiled_dir": compiled_dir} if options.compile else {}
    if options.cuda_graphs:
        fitting["cuda_graphs"] = True
    report.about["settings"] = ", ".join(fitting) or "defaults"
    run = Run(device, dtype, models, lengths, budget, report, compiling, fitting, compiled_dir)
    report.add("matrix product, the ceiling", "device", run.ceiling / 1e12, "TFLOP/s")
    return run


def measured(run: Run, names: Sequence[str]) -> bool:
    """Whether nothing failed. What is cut off or not begun for want of time has not failed."""
    whole, work = True, list(_work(run, names))
    try:
        with run.budget.cutting():
            while work:
                part, model = work[0]
                whole &= _measured(run, part, model)
                work.pop(0)
    except OutOfTime:
        for number, (part, model) in enumerate(work):
            run.report.leave_out(f"{model}: {part.name}", "no time left" if number else "cut off")
    return whole


def _work(run: Run, names: Sequence[str]) -> Iterator[tuple[Part, str]]:
    for part in PARTS:
        if part.name in names:
            yield from ((part, model) for model in run.models)


def _measured(run: Run, part: Part, model: str) -> bool:
    what = f"{model}: {part.name}"
    if not run.report.smoke and not run.budget.fits(part.seconds):
        why = f"it takes {part.seconds:.0f} s or more, {run.budget.left:.0f} s are left"
        run.report.leave_out(what, why)
        return True
    try:
        part.measure(run, model)
    except Exception as error:  # the others can be measured all the same
        traceback.print_exc()
        run.report.leave_out(what, f"failed: {repr(error)[:200]}")
        return False
    return True


def _among(names: Any) -> Callable[[str], list[str]]:
    def read(given: str) -> list[str]:
        wanted = given.split(",")
        for each in wanted:
            if each not in names:
                raise argparse.ArgumentTypeError(f"{each!r} is none of {', '.join(names)}")
        return wanted

    return read


def _listed(names: Any) -> str:
    return f"of {','.join(names)}; all"


if __name__ == "__main__":
    sys.exit(main())
