"""Muon: momentum whose matrices are made orthogonal before each step.

After https://kellerjordan.github.io/posts/muon/ (Jordan et al., 2024), with the step size of
"Muon is Scalable for LLM Training" (Liu et al., 2025), which lets it share AdamW's learning rate.
Convolutions count as matrices of (out, in * height * width).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push all singular values towards 1: (count, rows, columns) to the same."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """For weights of two or more dimensions; same-sized ones are treated as one stack."""

    def __init__(
        self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.0
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step on the current gradients."""
        for group in self.param_groups:
            stacks: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    stacks[weight.flatten(1).shape].append(weight)
            for weights in stacks.values():
                self._step_stack(weights, group["lr"], group["momentum"], group["decay"])

    def _step_stack(
        self, weights: list[nn.Parameter], lr: float, momentum: float, decay: float
    ) -> None:
        directions = []
        for weight in weights:
            gradient = cast(Tensor, weight.grad)
            average = self.state[weight].setdefault("average", torch.zeros_like(weight))
            average.lerp_(gradient, 1 - momentum)
            directions.append(gradient.lerp(average, momentum).flatten(1))
        stacked = orthogonalise(torch.stack(directions))
        size = 0.2 * max(stacked.shape[1:]) ** 0.5
        for weight, update in zip(weights, stacked, strict=True):
            weight.mul_(1 - lr * decay).sub_(update.view_as(weight), alpha=lr * size)


def optimizers_of(model: nn.Module, lr: float, outer: tuple[str, ...]) -> list[Optimizer]:
    """Muon for inner matrices and convolutions, AdamW for the ``outer`` layers and vectors."""
    inner: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (rest if weight.ndim < 2 or name.startswith(outer) else inner).append(weight)
    return [Muon(inner, lr=lr), torch.optim.AdamW(rest, lr=lr, weight_decay=0.0, fused=True)]
