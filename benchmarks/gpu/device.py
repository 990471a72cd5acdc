"""The device under measurement: what it is, when it is done, and how busy it was."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

LIBRARIES = ("torch", "diffusers", "transformers")
QUERY = ("name", "driver_version", "clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")


def described(device: torch.device) -> dict[str, Any]:
    """What figures belong to: the device with its clocks at this moment, and the software."""
    about: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }
    if device.type != "cuda":
        return about | {"name": platform.processor() or platform.machine()}
    properties = torch.cuda.get_device_properties(device)
    return about | {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nvidia-smi": _as_the_driver_says(device),
    }


def waited(device: torch.device) -> float:
    """The time when it has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """From an idle device to an idle device."""
    began = waited(device)
    call()
    return waited(device) - began


@dataclass(frozen=True, slots=True)
class Profile:
    """What the device did in a call, by torch's profiler: kernels, or operators on a CPU. A
    profiled call takes longer, what the device does in it does not."""

    busy_seconds: float
    """In which it did anything."""
    kernels: Mapping[str, tuple[int, float]]
    """How often each ran, and for how many seconds, the longest first."""


def profiled(call: Callable[[], object], device: torch.device) -> Profile:
    """The call, watched."""
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    with profile(activities=[activity]) as record:
        call()
        waited(device)
    events = [event for event in record.events() if event.device_type == kind]
    spans = [(event.time_range.start, event.time_range.end) for event in events]
    kernels: dict[str, tuple[int, float]] = {}
    for event in events:
        times, took = kernels.get(event.name, (0, 0.0))
        kernels[event.name] = times + 1, took + 1e-6 * event.time_range.elapsed_us()
    longest = sorted(kernels.items(), key=lambda each: -each[1][1])
    return Profile(1e-6 * covered(spans), dict(longest))


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what these cover together."""
    length, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        length += max(0.0, end - max(begin, until))
        until = max(until, end)
    return length


def give_back(device: torch.device) -> None:
    """Memory that nobody uses any more."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def crowded(device: torch.device) -> bool:
    """Whether more than half of its memory is taken."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return 2 * free < total


def _as_the_driver_says(device: torch.device) -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(
            [*command, f"--id={device.index or 0}"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(zip(QUERY, (each.strip() for each in said.stdout.split(",")), strict=False))
