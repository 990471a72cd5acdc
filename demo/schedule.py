"""A learning rate that follows the wall clock, so that its decay always ends in time."""

from __future__ import annotations

import math
import time

from torch.optim import Optimizer


class Deadline:
    """Linear warm-up over the first steps, then a cosine from ``peak_lr`` to 1 % at the end."""

    def __init__(self, minutes: float, peak_lr: float, warmup_steps: int = 100) -> None:
        self.started = time.time()
        self.seconds = minutes * 60
        self.peak_lr = peak_lr
        self.warmup_steps = warmup_steps

    def progress(self) -> float:
        """The share of the time that is gone, 0..1."""
        return min((time.time() - self.started) / self.seconds, 1.0)

    def passed(self) -> bool:
        """Whether the time is up."""
        return self.progress() >= 1.0

    def set_lr(self, optimizer: Optimizer, step: int) -> None:
        """Give the optimiser the learning rate of this moment."""
        warmup = min((step + 1) / self.warmup_steps, 1.0)
        decay = 0.01 + 0.99 * (1 + math.cos(math.pi * self.progress())) / 2
        for group in optimizer.param_groups:
            group["lr"] = self.peak_lr * warmup * decay
