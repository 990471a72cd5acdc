"""One device: its choice, its precision, its memory, and what its errors mean. Knows no model."""

from __future__ import annotations

import resource
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from server.errors import CheckpointError, DeviceLost, OutOfMemory

MEMORY_ALLOCATION = 2
RECOVERABLE = frozenset({1, 9, 701, *range(900, 909)})
"""CUDA error codes after which the context still works: invalid value, invalid configuration,
launch out of resources, and all about a graph that could not be recorded. Any other (illegal
address, assert, ECC, …) is sticky."""

FULL = ("DefaultCPUAllocator", "_STATUS_ALLOC_FAILED")
"""What other errors say where memory was short: the host's allocator, cuBLAS and cuDNN."""

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

AHEAD = 2
"""UNet calls that a GPU may have before it while the host goes on."""

INSTRUCTIONS = {
    torch.bfloat16: ("amx_bf16", "avx512_bf16"),
    torch.float16: ("amx_fp16", "avx512_fp16"),
}
"""Any of which an x86 CPU needs to compute in half precision."""


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one, else the CPU.

    Raises:
        CheckpointError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"{name!r} is not the name of a device") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"device {name} is not there; CUDA has {torch.cuda.device_count()}")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is float32 on a CPU, bfloat16 on a GPU that computes in it, else float16.

    Raises:
        CheckpointError: there is no such precision.
    """
    if name != "auto":
        try:
            return DTYPES[name]
        except KeyError:
            raise CheckpointError(f"dtype {name!r} is none of {', '.join(DTYPES)}") from None
    if device.type != "cuda":
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def compute_on(cores: int) -> None:
    """From now on the calling thread computes on so many cores of a CPU, whatever others do."""
    # A thread's first look at its number makes it the one that was set last, on any thread.
    torch.get_num_threads()
    torch.set_num_threads(cores)


def has_arithmetic(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the device computes in this precision by itself: a CPU that does not converts to
    float32 and back at every operation, and so is slower than in float32. True where it is not
    known."""
    needed = INSTRUCTIONS.get(dtype)
    if device.type != "cpu" or needed is None:
        return True
    able = torch.cpu.get_capabilities()
    return able.get("architecture") != "x86_64" or any(able.get(name) for name in needed)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that was in use so far: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Pace:
    """Keeps the host from running ahead of a GPU. Else, where calls are quickly launched, who comes
    or is canceled would wait behind all that were, and a step's time would be that of launching
    it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: deque[torch.cuda.Event] = deque()

    def keep(self) -> None:
        """Before a UNet call: waits until at most `AHEAD` are not done. The device never idles for
        it. Nothing on a CPU, which does each call at once."""
        if self._device.type != "cuda":
            return
        if len(self._marks) == AHEAD:
            self._marks.popleft().synchronize()
        mark = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        mark.record(torch.cuda.current_stream(self._device))
        self._marks.append(mark)


@contextmanager
def device_errors() -> Iterator[None]:
    """Lets errors of the device out as ours.

    Raises:
        OutOfMemory: this call did not fit; a smaller one may.
        DeviceLost: nothing will work on this device in this process any more.
    """
    try:
        yield
    except RuntimeError as error:
        _translate(error)
        raise


@contextmanager
def on_device() -> Iterator[None]:
    """Inference mode, with `device_errors`."""
    with device_errors(), torch.inference_mode():
        yield


def _translate(error: RuntimeError) -> None:
    """Raises ours in its place; returns if it has nothing to do with the device."""
    code = getattr(error, "error_code", None)
    full = isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in FULL)
    if full or code == MEMORY_ALLOCATION:
        raise OutOfMemory(f"the device is out of memory: {_first_line(error)}") from error
    if isinstance(error, torch.AcceleratorError) and code not in RECOVERABLE:
        raise DeviceLost(_first_line(error)) from error


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]
