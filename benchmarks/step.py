"""One UNet call in each precision and memory layout, and pictures drawn in half precision."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray

from benchmarks.drawing import Subject
from benchmarks.timing import (
    Figure,
    alternate,
    at_least,
    at_most,
    median_ratio,
    noted,
    on_one_core,
)
from server.catalog import Card
from server.workers.compiling import Compiling
from server.workers.engine import Engine
from server.workers.png import encode_png

ROWS = (1, 2, 4, 8, 16, 32)
CALLS = 3
"""Of the UNet in one measurement: the first after somebody else's finds cold caches."""
PNG_BARS = ((512, 2.5), (1024, 9.0))
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def layout_figure(folder: Path, rounds: int) -> Figure:
    """(h) What the layout that every checkpoint is loaded in gains for a UNet, and bfloat16."""
    ways = {
        f"{name} {layout}": UNet2DConditionModel.from_pretrained(folder, dtype=dtype)
        .eval()
        .to(memory_format=memory_format)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        for layout, memory_format in LAYOUTS.items()
    }
    by_rows = {rows: alternate(_calls(ways, rows), rounds) for rows in ROWS}
    plain, best = (f"float32 {layout}" for layout in LAYOUTS)
    gains = {rows: median_ratio(seconds[plain], seconds[best]) for rows, seconds in by_rows.items()}
    half = median_ratio(by_rows[ROWS[-1]][plain], by_rows[ROWS[-1]]["bfloat16 channels_last"])
    return at_least(
        "(h) float32 UNet, channels_last over contiguous",
        statistics.geometric_mean(gains.values()),
        1.0,
        "x",
        f"mean of {', '.join(f'{gain:.2f}x at {rows} rows' for rows, gain in gains.items())}; "
        f"bfloat16 channels_last at {ROWS[-1]} rows {half:.2f}x; ms a call: {_table(by_rows)}",
    )


def _calls(ways: Mapping[str, Any], rows: int) -> dict[str, Callable[[], object]]:
    return {name: partial(_call, unet, rows) for name, unet in ways.items()}


@torch.inference_mode()
def _call(unet: Any, rows: int) -> None:
    config, dtype = unet.config, unet.dtype
    side = config.sample_size
    for _ in range(CALLS):
        unet(
            torch.zeros(rows, config.in_channels, side, side, dtype=dtype),
            torch.full((rows,), 500.0),
            encoder_hidden_states=torch.zeros(rows, 77, config.cross_attention_dim, dtype=dtype),
            return_dict=False,
        )


def _table(by_rows: Mapping[int, Mapping[str, Sequence[float]]]) -> str:
    lines = []
    for name in by_rows[ROWS[-1]]:
        each = (
            f"{rows}: {1000 * statistics.median(s[name]) / CALLS:.1f}"
            for rows, s in by_rows.items()
        )
        lines.append(f"{name} {', '.join(each)}")
    return "; ".join(lines)


def half_figure(exact: Subject, half: Subject, rounds: int) -> Figure:
    """(i) 32 mixed generations in bfloat16 against a float32 pipeline call each, and how far their
    pictures are from the exact ones."""
    seconds = alternate(
        {
            "one float32 pipeline call each": exact.draw_one_by_one,
            "float32 engine": exact.draw_with_engine,
            "bfloat16 engine": half.draw_with_engine,
        },
        rounds,
    )
    serial = seconds["one float32 pipeline call each"]
    gain = median_ratio(serial, seconds["bfloat16 engine"])
    same = median_ratio(serial, seconds["float32 engine"])
    far = distance(pictures(half), pictures(exact))
    return at_least(
        f"(i) bfloat16 engine over one float32 pipeline call each, {exact.name}",
        gain,
        3.0,
        "x",
        f"float32 engine {same:.2f}x; bfloat16 from exact: {far}",
    )


def compiled_figure(
    plain: Subject, blocks: Subject, card: Card, folder: Path, rounds: int
) -> Figure:
    """(q) 32 mixed generations with the UNet's blocks compiled against the same without, and what
    it takes to compile them, anew and with what `folder` has kept."""
    anew = _learned(blocks, card, folder)
    torch.compiler.reset()
    kept = _learned(blocks, card, folder)
    seconds = on_one_core(
        {"eager": plain.draw_with_engine, "compiled": blocks.draw_with_engine}, rounds
    )
    gain = median_ratio(seconds["eager"], seconds["compiled"])
    ways = {"eager": plain.denoiser._unet, "compiled": blocks.denoiser._unet}
    by_rows = {rows: on_one_core(_calls(ways, rows), rounds) for rows in ROWS}
    calls = ", ".join(
        f"{median_ratio(each['eager'], each['compiled']):.2f}x at {rows} rows"
        for rows, each in by_rows.items()
    )
    return noted(
        f"(q) compiled blocks over eager, {plain.name}",
        gain,
        "x",
        f"UNet calls: {calls}; compiled in {anew:.0f} s, in {kept:.0f} s with what was kept; from "
        f"exact: {distance(pictures(blocks), pictures(plain))}",
    )


def _learned(subject: Subject, card: Card, folder: Path) -> float:
    """Seconds until it is compiled for whatever comes."""
    blocks = subject.denoiser.compiled
    assert blocks is not None
    began = time.perf_counter()
    Compiling(subject.denoiser, blocks, card, ROWS[-1], folder / "seconds").run()
    return time.perf_counter() - began


def pictures(subject: Subject) -> list[NDArray[np.uint8]]:
    """All that it is asked to draw, in order."""
    drawn = {}
    engine = Engine(subject.denoiser, max_step_pixels=10**12)
    for spec in subject.specs:
        engine.admit(subject.ticket(spec))
    while engine.busy:
        for outcome in engine.step().outcomes:
            assert outcome.picture is not None, outcome.error
            drawn[outcome.ticket.id] = outcome.picture.array().astype(np.uint8)
    return [drawn[str(spec.seed)] for spec in subject.specs]


def distance(these: Sequence[NDArray[np.uint8]], exact: Sequence[NDArray[np.uint8]]) -> str:
    """In grey levels of 255, and as a signal-to-noise ratio."""
    apart = np.abs(np.stack(these).astype(int) - np.stack(exact).astype(int))
    mean_square = float((apart**2).mean())
    ratio = 20 * math.log10(255) - 10 * math.log10(mean_square) if mean_square else math.inf
    return f"mean {apart.mean():.2f}, max {apart.max()} grey levels, PSNR {ratio:.1f} dB"


def png_figures(rounds: int) -> list[Figure]:
    """(j) One PNG, on one thread that is not the engine's."""
    return [_png(side, bar, 20 * rounds) for side, bar in PNG_BARS]


def _png(side: int, bar: float, rounds: int) -> Figure:
    y, x = np.mgrid[0:side, 0:side]
    grain = np.random.default_rng(0).integers(-6, 7, (side, side, 3))
    slopes = np.stack([x * 255 // side, y * 255 // side, (x + y) * 255 // (2 * side)], axis=-1)
    pixels = np.clip(slopes + grain, 0, 255).astype(np.uint8)
    texts = {"parameters": "a red circle, Steps: 20"}
    seconds = alternate({"png": lambda: encode_png(pixels, texts)}, rounds)["png"]
    size = len(encode_png(pixels, texts))
    return at_most(
        f"(j) PNG of {side} x {side}",
        1000 * statistics.median(seconds),
        bar,
        "ms",
        f"slopes with grain, {size / pixels.nbytes:.2f} of the raw size",
    )
