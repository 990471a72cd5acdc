"""How a model lies on its device: which attention it computes, and whether it only visits."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from server.catalog import Attention
from server.errors import CheckpointError


def set_attention(unet: Any, vae: Any, attention: Attention, device: torch.device) -> None:
    """Computes the attention of a UNet and an autoencoder this way.

    Raises:
        CheckpointError: xformers is asked for where it cannot run.
    """
    if attention is Attention.SDPA:
        unet.set_attn_processor(AttnProcessor2_0())
        vae.set_attn_processor(AttnProcessor2_0())
    elif attention is Attention.SLICED:
        unet.set_attention_slice("auto")  # the autoencoder attends once, at its lowest resolution
    elif attention is Attention.XFORMERS:
        _check_xformers(device)
        unet.enable_xformers_memory_efficient_attention()
        vae.enable_xformers_memory_efficient_attention()


def let_visit(model: Any, device: torch.device) -> None:
    """Keeps a model on the CPU; it is on `device` for the length of each call, one at a time."""
    forward, alone = model.forward, threading.Lock()

    @wraps(forward)
    def visiting(*args: Any, **kwargs: Any) -> Any:
        with alone, _lent(model, device):
            there = {name: _moved(value, device) for name, value in kwargs.items()}
            return forward(*(_moved(value, device) for value in args), **there)

    model.forward = visiting


@contextmanager
def _lent(model: Any, device: torch.device) -> Iterator[None]:
    """Its tensors on `device`; afterwards the same ones as before, so nothing is copied back."""
    at_home = [(each, each.data) for each in chain(model.parameters(), model.buffers())]
    try:
        for each, data in at_home:
            # Else each of these many copies would wait for the engine's steps on the device.
            each.data = data.to(device, non_blocking=True, copy=True)
        yield
    finally:
        for each, data in at_home:
            each.data = data


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _check_xformers(device: torch.device) -> None:
    if device.type != "cuda":
        raise CheckpointError(f"attention = 'xformers' needs a GPU, not {device}")
    if importlib.util.find_spec("xformers") is None:
        raise CheckpointError(
            "attention = 'xformers' needs the package xformers: "
            "pip install '.[xformers]' in the folder of Darkroom's source"
        )
