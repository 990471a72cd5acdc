"""What a checkpoint keeps on its device, and how often that was of use. For an operator's eyes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch

from server.models.adapters import Adapters
from server.models.conditioning import Conditioner
from server.models.memory import MemoryGauge
from server.models.parts import Parts
from server.models.recent import Tally


class Upkeep:
    """Of one checkpoint. May be asked on any thread, and waits for nothing."""

    def __init__(self, parts: Parts, conditioner: Conditioner, adapters: Adapters) -> None:
        self._conditioner = conditioner
        self._adapters = adapters
        self._gauge = MemoryGauge(parts.device)
        self._models = dict(_models(parts))
        self._where = parts.device.type

    def caches(self) -> Mapping[str, Sequence[Tally]]:
        """How often what was asked for was kept already, by what it is."""
        kept = {name: [tally] for name, tally in self._adapters.tallies().items()}
        return {"prompt": self._conditioner.tallies(), **kept}

    def memory_bytes(self) -> Mapping[str, int]:
        """Weights by part, of what only visits the device those that are there now; `other` is all
        else that is held, by the tickets and caches; `free` is what could be had, by others on the
        device or host too. On a CPU all but `free` is of this process."""
        held = self._gauge.held_bytes()
        weights = {part: self._bytes(models) for part, models in self._models.items()}
        other = max(0, held - sum(weights.values()))
        return {**weights, "other": other, "free": self._gauge.free_bytes()}

    def _bytes(self, models: Iterable[Any]) -> int:
        tensors: Iterator[torch.Tensor] = chain.from_iterable(
            chain(model.parameters(), model.buffers()) for model in models
        )
        return sum(tensor.nbytes for tensor in tensors if tensor.device.type == self._where)


def _models(parts: Parts) -> Iterator[tuple[str, Sequence[Any]]]:
    yield "unet", [parts.unet]
    yield "autoencoder", [parts.vae]
    yield "text_encoders", [reader.encoder for reader in parts.readers]
    others = {
        "depth_model": parts.depth and parts.depth.model,
        "safety_checker": parts.safety and parts.safety.model,
        "preview_autoencoder": parts.preview_vae,
    }
    for part, model in others.items():
        if model is not None:
            yield part, [model]
