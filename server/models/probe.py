"""Whether latents are numbers still, asked of the device without waiting for its answer."""

from __future__ import annotations

import math
from typing import Any

import torch

EVERY = 4
"""Steps from one look to the next, beginning with the first step, after which most of what goes
wrong has gone wrong.

To wait for an answer would cost a step's worth of time at every look: the host gives the device
its next step while it computes this one, and would have to let it run dry. A look without waiting
is three calls of some ten microseconds each, for every ticket; at each fourth step that is below a
thousandth of a step, and what has gone wrong costs its neighbours three steps more at most. What
comes after the last look is seen when the picture is copied, where it is waited for anyhow.
"""


class Probe:
    """One look at one ticket's latents."""

    def __init__(self, latents: torch.Tensor) -> None:
        # The largest is NaN where any is, and one kernel; `isfinite` makes five.
        largest = torch.linalg.vector_norm(latents, ord=math.inf)
        self._largest = largest.to("cpu", non_blocking=True)
        self._copied: Any = None
        if latents.is_cuda:
            # On the stream of their device: the current device may be another one.
            stream: Any = torch.cuda.current_stream(latents.device)
            self._copied = stream.record_event()

    @property
    def failed(self) -> bool:
        """Whether it is known that they held NaN or infinity. Does not wait."""
        if self._copied is not None and not self._copied.query():
            return False
        return not math.isfinite(self._largest.item())
