"""From a card to a checkpoint on a device, part by part. Knows no queue and no pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from server.catalog import Card
from server.errors import CheckpointError
from server.models.device import choose_device, choose_dtype, device_errors
from server.models.sd import StableDiffusion
from server.models.sources import WEIGHTS, check, locate, read_json, variant, weights_bytes

Progress = Callable[[str, int, int], None]
"""Told as each part begins: its name, the bytes of weights read before it, the bytes in all."""


def load(
    card: Card, device: str = "auto", dtype: str = "auto", progress: Progress | None = None
) -> StableDiffusion:
    """The card's checkpoint, ready to draw on `device`.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`, whatever the files hold.

    Raises:
        CheckpointError: it cannot be loaded; says which part is wrong and how.
        OutOfMemory: it does not fit the device.
    """
    _quiet()
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    folder = locate(card)
    sampler_config = check(folder, card)
    loader = _Loader(folder, place, progress or _ignore)
    return StableDiffusion(
        text_encoder=loader.model("text_encoder", CLIPTextModel, precision),
        unet=loader.model("unet", UNet2DConditionModel, precision),
        vae=loader.model("vae", AutoencoderKL, _vae_dtype(folder, precision)),
        tokenizer=loader.tokenizer(),
        sampler_config=sampler_config,
    )


class _Loader:
    """Loads the parts of one folder onto one device and says what it is at."""

    def __init__(self, folder: Path, device: torch.device, progress: Progress) -> None:
        self._folder = folder
        self._device = device
        self._progress = progress
        self._done = 0
        self._total = sum(weights_bytes(folder / part) for part in WEIGHTS)

    def model(self, part: str, kind: Any, dtype: torch.dtype) -> Any:
        self._progress(part, self._done, self._total)
        with device_errors():
            model = self._read(part, kind, dtype).requires_grad_(False).eval()
            model.to(self._device, memory_format=torch.channels_last)  # what convolutions want
        self._done += weights_bytes(self._folder / part)
        return model

    def tokenizer(self) -> Any:
        self._progress("tokenizer", self._done, self._total)
        try:
            return CLIPTokenizer.from_pretrained(self._folder / "tokenizer", local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"the tokenizer cannot be loaded: {error}") from error

    def _read(self, part: str, kind: Any, dtype: torch.dtype) -> Any:
        path = self._folder / part
        try:
            model, found = kind.from_pretrained(
                path,
                torch_dtype=dtype,
                variant=variant(path),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"the {part} cannot be loaded: {error}") from error
        if found["missing_keys"]:
            some = ", ".join(sorted(found["missing_keys"])[:3])
            raise CheckpointError(f"the {part} lacks {len(found['missing_keys'])} tensors: {some}")
        return model


def _vae_dtype(folder: Path, dtype: torch.dtype) -> torch.dtype:
    """float32 for an autoencoder whose own config says that float16 overflows in it."""
    # Read from the file: the class's default is true, even for those that need it not.
    upcast = read_json(folder / "vae" / "config.json").get("force_upcast", False)
    return torch.float32 if upcast and dtype is torch.float16 else dtype


def _quiet() -> None:
    """The libraries' bars and advice do not belong into a server's log."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=UserWarning, module="torchsde")


def _ignore(part: str, done: int, total: int) -> None:
    """The progress of a load that nobody watches."""
