"""UNet calls with nothing around them, beside the engine's steps."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.ceiling import unet_conditions
from benchmarks.gpu.device import seconds
from benchmarks.gpu.run import Run
from benchmarks.gpu.subject import SETTLING, Subject


class BareUnet:
    """Calls of one row count, always with the same random input."""

    def __init__(self, subject: Subject, rows: int, calls: int) -> None:
        self._unet, self._device, self._calls = subject.part("unet"), subject.device, calls
        made: dict[str, Any] = {"device": subject.device, "dtype": self._unet.dtype}
        config = self._unet.config
        side = subject.model.side // 8
        self._latents = torch.randn(rows, config.in_channels, side, side, **made)
        self._timesteps = torch.full((rows,), 500.0, device=subject.device)
        self._conditions = unet_conditions(self._unet, rows, **made)
        self._run(SETTLING)

    def call_seconds(self) -> float:
        """The mean of all calls, until the device is done."""
        return seconds(lambda: self._run(self._calls), self._device) / self._calls

    @torch.inference_mode()
    def _run(self, calls: int) -> None:
        for _ in range(calls):
            self._unet(self._latents, self._timesteps, return_dict=False, **self._conditions)


def side_by_side(run: Run, subject: Subject, rows: int) -> tuple[list[float], list[float]]:
    """Seconds of an engine's step and of a bare call, round by round."""
    calls = run.calls(subject, rows)
    bare = BareUnet(subject, rows, calls)
    times = run.in_turn(
        {"engine": lambda: subject.step_seconds(rows, calls), "bare": bare.call_seconds}
    )
    return times["engine"], times["bare"]
