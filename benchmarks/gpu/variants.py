"""The same model otherwise, each as a ratio to the defaults in the same run."""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.run import Run
from benchmarks.gpu.subject import Subject
from benchmarks.timing import median_ratio

ONE, MANY = 2, 16
"""Rows of one picture's steps and of eight pictures'."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One other way.

    Args:
        fitting: what `load` is told besides.
        around: its steps are taken in here, with the defaults' own models where it is loaded no
            other way.
        only_cuda: it cannot be had elsewhere.
    """

    name: str
    fitting: Mapping[str, Any] = field(default_factory=dict)
    around: Callable[[Subject], AbstractContextManager[object]] = contextlib.nullcontext
    only_cuda: bool = True


def all_variants(run: Run) -> Iterator[Variant]:
    """The settings first, then what could become one."""
    compiled = {"compiled_dir": run.compiled_dir}
    yield Variant("cuda graphs", {"cuda_graphs": True})
    yield Variant("compile", compiled)
    yield Variant("compile and cuda graphs", compiled | {"cuda_graphs": True})
    yield Variant("xformers", {"attention": "xformers"})
    yield Variant("cuDNN's attention", around=_attention(SDPBackend.CUDNN_ATTENTION))
    yield Variant("flash attention", around=_attention(SDPBackend.FLASH_ATTENTION))
    yield Variant("convolutions chosen by trial", around=_trial)
    yield Variant("contiguous instead of channels last", around=_contiguous, only_cuda=False)


def variants(run: Run, name: str) -> None:
    """Every one that can be had here; a failing one leaves the others."""
    for variant in all_variants(run):
        why = _missing(run, variant)
        try:
            if not why:
                _against(run, name, variant)
        except Exception as error:  # a library that is in the way of one is not of the others
            traceback.print_exc()
            why = f"failed: {error!r}"[:200]
        run.tidy()
        if why:
            run.report.leave_out(f"{name}: {variant.name}", why)


def _missing(run: Run, variant: Variant) -> str:
    if variant.only_cuda and run.device.type != "cuda":
        return "it needs CUDA"
    wants_xformers = variant.fitting.get("attention") == "xformers"
    if wants_xformers and importlib.util.find_spec("xformers") is None:
        return "xformers is not installed"
    return ""


def _against(run: Run, name: str, variant: Variant) -> None:
    """Steps of one picture and of eight, in turn with the defaults'."""
    usual = run.plain(name)
    other = run.load(name, **variant.fitting) if variant.fitting else usual
    for rows in (ONE, MANY):
        calls = run.calls(usual, rows)
        times = run.in_turn(
            {
                "default": partial(usual.step_seconds, rows, calls),
                variant.name: partial(_step_seconds, other, variant, rows, calls),
            }
        )
        gain = median_ratio(times["default"], times[variant.name])
        told = ", ".join(f"{who} {1000 * statistics.median(s):.4g} ms" for who, s in times.items())
        run.report.add(f"{variant.name}, steps of {rows} rows", name, gain, "x", told)


def _step_seconds(subject: Subject, variant: Variant, rows: int, calls: int) -> float:
    with variant.around(subject):
        return subject.step_seconds(rows, calls)


def _attention(backend: SDPBackend) -> Callable[[Subject], AbstractContextManager[object]]:
    """Of torch's kernels this one where it can, and the plain one where it cannot."""
    return lambda subject: sdpa_kernel([backend, SDPBackend.MATH], set_priority=True)


def _trial(subject: Subject) -> AbstractContextManager[object]:
    return torch.backends.cudnn.flags(enabled=True, benchmark=True)


@contextlib.contextmanager
def _contiguous(subject: Subject) -> Iterator[None]:
    unet = subject.part("unet").to(memory_format=torch.contiguous_format)
    try:
        yield
    finally:
        unet.to(memory_format=torch.channels_last)
