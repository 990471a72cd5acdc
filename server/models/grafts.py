"""Low-rank changes that a model wears for a while, without a weight being touched.

Each changed layer adds up · down · input to its output. A model that wears nothing computes what
it always did, to the last bit. Knows no files.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import conv2d, linear

from server.models.places import adaptable


@dataclass(frozen=True, slots=True)
class Graft:
    """A change of one layer, on the device, with all its scales in `up`."""

    down: torch.Tensor  # (rank, in) or (rank, in, kernel, kernel)
    up: torch.Tensor  # (out, rank) or (out, rank, 1, 1)

    def grow(self, module: Any, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The layer's output with the change."""
        if self.down.ndim == 2:
            return output + linear(linear(inputs, self.down), self.up)
        inner = conv2d(inputs, self.down, None, module.stride, module.padding, module.dilation)
        return output + conv2d(inner, self.up)


Grafts = Mapping[str, Graft]
"""By the paths of the layers."""


class Switched:
    """A model that one thread alone runs, as the engine's does the UNet."""

    def __init__(self, model: Any) -> None:
        self._layers = adaptable(model)
        self._worn: Grafts = {}
        self._hooks: list[Any] = []

    def wear(self, grafts: Grafts) -> None:
        """These and no others, until the next call. Only a change costs anything."""
        if grafts is self._worn:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = [
            self._layers[path].register_forward_hook(partial(_grow, graft))
            for path, graft in grafts.items()
        ]
        self._worn = grafts


class Shared:
    """A model that several threads may run at the same moment, each with its own grafts."""

    def __init__(self, model: Any) -> None:
        self._here = threading.local()
        for path, module in adaptable(model).items():
            module.register_forward_hook(partial(self._grow, path))

    @contextmanager
    def wearing(self, grafts: Grafts) -> Iterator[None]:
        """For calls of this thread."""
        self._here.grafts = grafts
        try:
            yield
        finally:
            self._here.grafts = {}

    def _grow(self, path: str, module: Any, inputs: Any, output: torch.Tensor) -> Any:
        graft = getattr(self._here, "grafts", {}).get(path)
        return output if graft is None else graft.grow(module, inputs[0], output)


def _grow(graft: Graft, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return graft.grow(module, inputs[0], output)
