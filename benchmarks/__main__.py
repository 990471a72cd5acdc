"""`make bench`: every figure against its bar, from one run on this machine.

A bar that is missed is said and no error: on a busy machine it proves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from benchmarks import (
    accept,
    drawing,
    gateways,
    load,
    playground,
    quantized,
    service,
    shortcuts,
    step,
)
from benchmarks.control import figures as control
from benchmarks.fairness import report as fairness
from benchmarks.peers import run as peers
from benchmarks.peers.report import figures as peer_figures
from benchmarks.timing import Figure
from server.catalog import Card, load_catalog
from server.models.loading import load as load_checkpoint
from server.models.sources import locate
from tests.models import tiny

PARTS = (
    "drawing",
    "accept",
    "service",
    "playground",
    "load",
    "control",
    "step",
    "shortcuts",
    "fairness",
)
LONG = tuple(peers.PARTS)
"""Parts that are measured when they are named; they take longer than all others together."""
CPUINFO = Path("/proc/cpuinfo")


def main() -> None:
    """Run the parts asked for, print each figure as it comes, write all of them down."""
    options = asked_for(sys.argv[1:])
    figures = []
    document: dict[str, Any] = {"machine": machine()}
    print(machine())
    for figure in every(options, document):
        print(figure, flush=True)
        figures.append(figure)
    if options.out:
        document["figures"] = [asdict(f) for f in figures]
        options.out.write_text(json.dumps(document, indent=2) + "\n")
    missed = [f.name for f in figures if not f.met]
    print(f"{len(figures) - len(missed)} of {len(figures)} bars met", *missed, sep="\nMISSED: ")


def asked_for(arguments: list[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        default=PARTS,
        type=a_part,
        help=f"of {', '.join(PARTS)}; all. And peers and "
        "peers-sd-v1, which take half an hour each for 5 rounds",
    )
    parser.add_argument("--rounds", type=int, default=5, help="alternating runs for each ratio")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--plots", type=Path, help="a folder for the plots of peers")
    return parser.parse_args(arguments)


def a_part(name: str) -> str:
    """One of `PARTS` or `LONG`. argparse's own choices refuse "none given" before Python 3.12."""
    if name not in PARTS + LONG:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS + LONG)}")
    return name


def every(options: argparse.Namespace, document: dict[str, Any]) -> Iterator[Figure]:
    """All figures asked for; what peers did besides goes into the document and the plots."""
    yield from measure(options.parts, options.rounds)
    for part in (part for part in LONG if part in options.parts):
        race = peers.PARTS[part](options.rounds)
        document[part] = peers.document(race)
        if options.plots:
            peers.draw_plots(race, options.plots, machine())
        yield from peer_figures(race)


def measure(parts: list[str], rounds: int) -> Iterator[Figure]:
    """The figures of these parts, one by one."""
    measures: dict[str, Callable[[], Iterable[Figure]]] = {
        "drawing": lambda: drawing_figures(rounds),
        "step": lambda: step_figures(rounds),
        "accept": lambda: chain([accept.figure()], gateways.figures(rounds)),
        "service": lambda: service_figures(rounds),
        "playground": lambda: playground.figures(rounds),
        "load": load.figures,
        "control": control.figures,
        "fairness": fairness.figures,
        "shortcuts": lambda: chain(shortcuts.figures(rounds), quantized.figures(rounds)),
    }
    for name, figures in measures.items():
        if name in parts:
            yield from figures()


def drawing_figures(rounds: int) -> Iterator[Figure]:
    """(a), (b), (c) for the demo checkpoint, (b) for one that is bound by launches."""
    card = load_catalog()["demo"]
    demo = a_subject("demo", card, locate(card), 128)
    yield drawing.overhead(demo, 4 * rounds)
    yield from drawing.throughput_figures(demo, drawing.throughput(demo, rounds))
    with tempfile.TemporaryDirectory() as name:
        folder = tiny.sd_v1(Path(name))
        launch_bound = a_subject("launch-bound", tiny.card(folder), folder, 64)
        yield from drawing.throughput_figures(
            launch_bound, drawing.throughput(launch_bound, rounds)
        )


def step_figures(rounds: int) -> Iterator[Figure]:
    """(h), (i) and (q) for the demo checkpoint, (j) for pictures of any."""
    card = load_catalog()["demo"]
    folder = locate(card)
    exact = a_subject("demo", card, folder, 128)
    yield step.layout_figure(folder / "unet", rounds)
    yield step.half_figure(exact, a_subject("demo", card, folder, 128, "bfloat16"), rounds)
    yield from step.png_figures(rounds)
    with tempfile.TemporaryDirectory() as name:
        kept = Path(name)
        blocks = a_subject("demo", card, folder, 128, compiled_dir=kept)
        yield step.compiled_figure(exact, blocks, card, kept, rounds)


def service_figures(rounds: int) -> Iterator[Figure]:
    """(d) and (e) over HTTP."""
    pipeline = a_pipeline(locate(load_catalog()["demo"]))

    def call() -> None:
        pipeline(
            "a red circle on a blue background",
            num_inference_steps=20,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(1),
        )

    with service.private_server() as client:
        yield service.claim(client, 200)
        yield service.latency(client, call, 4 * rounds)


def a_subject(
    name: str,
    card: Card,
    folder: Path,
    size: int,
    dtype: str = "float32",
    compiled_dir: Path | None = None,
) -> drawing.Subject:
    """The same folder as our family loads it, and as diffusers does in float32."""
    denoiser = load_checkpoint(card, "cpu", dtype, compiled_dir=compiled_dir)
    return drawing.Subject(name, denoiser, a_pipeline(folder), drawing.mixed_specs(size))


def a_pipeline(folder: Path) -> StableDiffusionPipeline:
    """diffusers' own, in float32 and in the memory layout that ours has, quiet."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def machine() -> str:
    """What the figures were measured on."""
    model = re.search(r"model name\s*: (.*)", CPUINFO.read_text()) if CPUINFO.exists() else None
    name = model[1] if model else platform.processor() or platform.machine()
    today = time.strftime("%Y-%m-%d")
    return f"{today}, {os.cpu_count()} cores of {name}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
