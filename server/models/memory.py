"""What a device call needs in memory, and how much is free. Linux and CUDA; elsewhere unknown."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

log = logging.getLogger("darkroom.warmup")

PROCESS = Path("/proc/self")
HOST = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
RESET_PEAK = "5"
"""What the kernel takes as the order to forget a process' peak (proc(5), clear_refs)."""


class MemoryGauge:
    """Of one device; of this process and its host where that is the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def begin(self) -> None:
        """From now on the peak is another one."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            return
        try:
            (PROCESS / "clear_refs").write_text(RESET_PEAK)
            self._before = _figures(PROCESS / "status")["VmRSS"]
        except (OSError, KeyError) as error:
            log.debug("memory cannot be measured here: %s", error)

    def grown_bytes(self) -> int:
        """The most that was in use since `begin`, more than then; 0 where that is not known."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        try:
            return max(0, _figures(PROCESS / "status")["VmHWM"] - self._before)
        except (OSError, KeyError):
            return 0

    def held_bytes(self) -> int:
        """In use now by this process: of the device, the allocator's reserve apart; 0 where that is
        not known."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        try:
            return _figures(PROCESS / "status")["VmRSS"]
        except (OSError, KeyError):
            return 0

    def free_bytes(self) -> int:
        """That could be had now; 0 where that is not known."""
        if self._device.type == "cuda":
            return _free_on(self._device)
        try:
            free = _figures(HOST)["MemAvailable"]
        except (OSError, KeyError):
            return 0
        return min(free, _free_in_group(free))


def _free_on(gpu: torch.device) -> int:
    """With what the allocator has in reserve."""
    try:
        free, _ = torch.cuda.mem_get_info(gpu)
    except RuntimeError as error:  # the driver's, of a device that is lost or too full to answer
        log.debug("what is free on %s is not known: %s", gpu, error)
        return 0
    return free + torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)


def _free_in_group(otherwise: int) -> int:
    """Within the limit of a container."""
    try:
        most = (GROUP / "memory.max").read_text().strip()
        used = int((GROUP / "memory.current").read_text())
        return otherwise if most == "max" else max(0, int(most) - used)
    except (OSError, ValueError):
        return otherwise


def _figures(path: Path) -> dict[str, int]:
    """Bytes, of the lines in kB."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {
        name: 1024 * int(rest.split()[0]) for name, _, rest in lines if rest.strip().endswith("kB")
    }
