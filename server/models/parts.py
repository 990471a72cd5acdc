"""What a checkpoint is made of once it is loaded. Knows no files and draws nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from server.models.compiled import Compiled
from server.models.graphs import Graphs


@dataclass(frozen=True, slots=True)
class TextReader:
    """A tokenizer and its text encoder."""

    tokenizer: Any
    encoder: Any


@dataclass(frozen=True, slots=True)
class DepthEstimator:
    """A DPT-hybrid model and the processor that makes its input of a picture."""

    model: Any
    processor: Any


@dataclass(frozen=True, slots=True)
class SafetyChecker:
    """The checker that came with the checkpoint, and the processor that makes its input."""

    model: Any
    processor: Any


@dataclass(frozen=True, slots=True)
class Parts:
    """Models in evaluation mode on their device, and the configs that tell how to use them."""

    unet: Any
    vae: Any
    readers: tuple[TextReader, ...]
    """One for `sd` and the refiner, two for SDXL base: CLIP ViT-L/14, then OpenCLIP ViT-bigG."""
    sampler_config: Mapping[str, Any]
    low_res_sampler_config: Mapping[str, Any] | None = None
    """Of an upscaler: the schedule by which its input picture is noised."""
    depth: DepthEstimator | None = None
    safety: SafetyChecker | None = None
    zeros_for_empty_prompt: bool = False
    """SDXL: an empty negative prompt is all zeros (`force_zeros_for_empty_prompt`)."""
    always_tiled: bool = False
    """Pictures of any size go through the autoencoder in overlapping tiles."""
    preview_vae: Any = None
    """Decodes previews in place of the autoencoder."""

    compiled: Compiled | None = None
    """The UNet's blocks, if they are compiled."""
    graphs: Graphs | None = None
    """Of the UNet's calls, if they are recorded."""

    @property
    def device(self) -> torch.device:
        """Where the UNet computes."""
        device: torch.device = self.unet.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """In which precision the UNet computes."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def parameters(self) -> int:
        """How many numbers the UNet, the autoencoder and the text encoders hold."""
        models = (self.unet, self.vae, *(reader.encoder for reader in self.readers))
        return sum(p.numel() for model in models for p in model.parameters())
