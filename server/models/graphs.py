"""UNet calls recorded once and replayed, so that the host launches one graph instead of a thousand
kernels.

A graph has fixed shapes. So there is one for each of a few row counts, and a call of other rows is
padded to the next of them: rows do not see each other, and what comes of the padding is cut off.
Recorded when it is first met; as many are kept as there is room for. Knows no tickets, and nothing
of CUDA but in `on_cuda`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from server.errors import DarkroomError, OutOfMemory
from server.models.device import device_errors
from server.models.recent import Recent

log = logging.getLogger("darkroom.models")

COUNTS = (1, 2, 4, 6, *range(8, 65, 4))
"""Of rows. Most tickets have two; padding is three rows at most, as each takes time."""

MOST_LATENTS = 2**17
"""Of all rows: eight of 1024 x 1024 pixels. The arithmetic of more takes longer than to launch it,
and its graphs would take much memory."""

MOST_GRAPHS, MOST_BYTES = 48, 4 * 2**30

WARM_CALLS = 2
"""Before one is recorded: libraries choose their kernels then."""


class Replay(Protocol):
    """A recorded call."""

    @property
    def nbytes(self) -> int:
        """Memory of the device that it keeps."""

    def __call__(self) -> torch.Tensor:
        """Made once more, with what its inputs hold now. The next time overwrites the result."""


Capture = Callable[[Callable[[], torch.Tensor]], Replay]
"""Records a call."""


class Graphs:
    """In the place of a UNet, for the thread alone that runs it.

    Args:
        unet: whatever is hooked into it, such as a LoRA, must be gone while this is called.
    """

    def __init__(self, unet: Callable[..., Any], capture: Capture) -> None:
        self._unet = unet
        self._capture = capture
        self._kept: Recent[_Graph] = Recent(MOST_GRAPHS, MOST_BYTES)
        self._recording = threading.Lock()
        self._given_up = False

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, *, return_dict: bool = False, **arguments: Any) -> tuple[torch.Tensor]:
        """As the UNet's, whose keyword arguments are tensors with a row for each sample, and
        mappings of such."""
        tensors = dict(_tensors(arguments))
        rows, shape = len(arguments["sample"]), arguments["sample"].shape
        count = _padded(rows)
        if self._given_up or count is None or count * shape[-1] * shape[-2] > MOST_LATENTS:
            return self._plainly(arguments)
        found = self._kept.get(_key(count, tensors), lambda: self._record(count, arguments))
        if found.replay is None:
            return self._plainly(arguments)
        for name, tensor in tensors.items():
            found.inputs[name][:rows].copy_(tensor)
        return (found.replay()[:rows].clone(),)  # the next call overwrites it

    @contextlib.contextmanager
    def forgotten(self) -> Iterator[None]:
        """Keep none, and record none in this block: meanwhile the allocator could give nothing
        back. On any thread. What is under way on the device is still finished."""
        with self._recording:
            self._kept.clear()
            yield

    def _plainly(self, arguments: Mapping[str, Any]) -> tuple[torch.Tensor]:
        return (self._unet(return_dict=False, **arguments)[0],)

    def _record(self, count: int, arguments: Mapping[str, Any]) -> _Graph:
        """None where it cannot be. One that does not fit costs the others, and is not tried again
        before all are forgotten: the call by itself takes less memory."""
        try:
            return self._recorded(count, arguments)
        except OutOfMemory as error:
            log.warning("a call of %d rows is not recorded: %s", count, error)
        # Not under `except`: the error holds on to all that the recording had in memory.
        self._kept.clear()
        return _Graph({}, None)

    def _recorded(self, count: int, arguments: Mapping[str, Any]) -> _Graph:
        buffers = _buffers(count, arguments)

        def call() -> torch.Tensor:
            made: torch.Tensor = self._unet(return_dict=False, **buffers)[0]
            return made

        try:
            with self._recording, device_errors():
                replay = self._capture(call)
        except DarkroomError:  # out of memory, or the device is lost
            raise
        except Exception as error:
            self._given_up = True
            why = str(error).partition("\n")[0]
            log.warning("no CUDA graphs, as one cannot be recorded: %s", why, exc_info=error)
            return _Graph({}, None)
        return _Graph(dict(_tensors(buffers)), replay)


@dataclass(frozen=True, slots=True)
class _Graph:
    inputs: Mapping[str, torch.Tensor]
    replay: Replay | None

    @property
    def nbytes(self) -> int:
        inputs = sum(each.nbytes for each in self.inputs.values())
        return inputs + (self.replay.nbytes if self.replay else 0)


def record_calls(unet: Any) -> Graphs | None:
    """Those of a UNet on a GPU; None, and a word in the log, where there is none."""
    if unet.device.type != "cuda":
        log.warning("DARKROOM_CUDA_GRAPHS is for GPUs; this is %s", unet.device)
        return None
    return Graphs(unet, on_cuda(unet.device))


def on_cuda(device: torch.device) -> Capture:
    """Records CUDA graphs, which share the memory of what is between their inputs and results."""
    pool = torch.cuda.graph_pool_handle()

    def capture(call: Callable[[], torch.Tensor]) -> Replay:
        with torch.cuda.device(device):
            before = torch.cuda.memory_reserved(device)
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_CALLS):
                    call()
            torch.cuda.current_stream(device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads prepare and publish meanwhile, and may wait for the device.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                made = call()
            grown = torch.cuda.memory_reserved(device) - before
        return _CudaReplay(graph, made, max(made.nbytes, grown))

    return capture


@dataclass(frozen=True, slots=True)
class _CudaReplay:
    graph: Any
    made: torch.Tensor
    nbytes: int

    def __call__(self) -> torch.Tensor:
        self.graph.replay()
        return self.made


def _padded(rows: int) -> int | None:
    """The row count whose graph is replayed for so many; None where they are too many."""
    return next((count for count in COUNTS if count >= rows), None)


def _tensors(arguments: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        elif value is not None:
            yield name, value


def _buffers(count: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of so many rows; those of padding are zeros until a call has left others there."""
    return {
        name: _buffers(count, value)
        if isinstance(value, Mapping)
        else None
        if value is None
        else value.new_zeros(count, *value.shape[1:])
        for name, value in arguments.items()
    }


def _key(count: int, tensors: Mapping[str, torch.Tensor]) -> Hashable:
    return count, tuple((name, each.shape[1:], each.dtype) for name, each in tensors.items())
