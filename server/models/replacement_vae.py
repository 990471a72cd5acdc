"""Autoencoders that stand in for a checkpoint's own. Knows no requests."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from server.catalog import Card
from server.errors import CheckpointError, InvalidSpec
from server.models.device import device_errors
from server.models.parts import Parts
from server.models.shelf import CONFIG, vaes
from server.models.sources import read_json, refusing
from server.models.tensors import in_precision, read_tensors

WEIGHTS = "diffusion_pytorch_model"
PREFIX = "first_stage_model."

FREE = frozenset({"sample_size", "force_upcast"})
"""What an autoencoder may say otherwise than the checkpoint's own: it changes no layer."""

DEFAULTS: dict[str, Any] = {"_class_name": "AutoencoderKL", "quantization_config": None} | {
    name: parameter.default
    for name, parameter in signature(AutoencoderKL).parameters.items()
    if name not in FREE
}
"""What a config means that says nothing of it."""


def read_vae(path: Path, parts: Parts, allow_pickle: bool = False) -> Any:
    """A single file or a diffusers folder as an AutoencoderKL, ready beside the checkpoint's own.

    Args:
        allow_pickle: whether a `.ckpt` or `.pt` may be read; only tensors are ever taken from it.

    Raises:
        InvalidSpec: it cannot be read, or does not fit the checkpoint; says why.
    """
    try:
        if path.is_dir():
            model = _from_folder(path, parts)
        else:
            model = _from_file(path, parts.vae, allow_pickle)
    except CheckpointError as error:
        raise InvalidSpec(f"the autoencoder {path.name} cannot be used: {error.message}") from error
    model.requires_grad_(False).eval()
    with device_errors():
        model.to(parts.vae.device, memory_format=torch.channels_last, non_blocking=True)
    model.use_slicing = parts.vae.use_slicing
    for processor in list(parts.vae.attn_processors.values())[:1]:
        model.set_attn_processor(processor)
    return model


def with_vae(parts: Parts, card: Card, models: Path | None, allow_pickle: bool = False) -> Parts:
    """The parts with the autoencoder that the card names, where it names one.

    Raises:
        CheckpointError: it is not there or cannot be used; says why.
    """
    if not card.vae:
        return parts
    try:
        path = find_vae(card.vae, models)
        return replace(parts, vae=read_vae(path, parts, allow_pickle))
    except InvalidSpec as error:
        raise CheckpointError(f"checkpoint {card.name!r}: {error.message}") from error


def find_vae(named: str, models: Path | None) -> Path:
    """An autoencoder that a card names: by its path, or in the folder of models.

    Raises:
        InvalidSpec: there is none.
    """
    path = Path(named).expanduser()
    return path if path.exists() else vaes(models).find(named)


def _from_folder(path: Path, parts: Parts) -> Any:
    config = read_json(path / CONFIG)
    _check(config, parts.vae.config)
    files = [file.name for file in path.glob(f"{WEIGHTS}*.safetensors")]
    if not files:
        raise CheckpointError("it has no weights in safetensors")
    # As for a checkpoint: one whose own config says so overflows in float16.
    upcast = config.get("force_upcast") and parts.dtype is torch.float16
    own = {name: each for name, each in parts.vae.config.items() if not name.startswith("_")}
    try:
        # Without a dtype: diffusers would make it the whole process's for a moment, and the engine
        # draws meanwhile. With our own config: nothing is built of numbers that a folder names.
        model, found = AutoencoderKL.from_pretrained(
            path,
            variant="fp16" if all(".fp16" in name for name in files) else None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **own,
        )
    except Exception as error:  # files of somebody's making can fail in any way
        # Callers need not know the host's folders.
        raise CheckpointError(str(error).replace(str(path), path.name)) from error
    _refuse_missing(found["missing_keys"])
    return model.to(torch.float32 if upcast else parts.dtype)


def _check(config: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """That it is of the same architecture, by which latents mean the same too."""
    for name, default in DEFAULTS.items():
        theirs, ours = config.get(name, default), own.get(name, default)
        if _listed(theirs) != _listed(ours):
            raise CheckpointError(
                f"it was made for another kind of checkpoint: its {name} is"
                f" {reprlib.repr(theirs)}, this checkpoint's is {reprlib.repr(ours)}"
            )


def _listed(value: Any) -> Any:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _from_file(path: Path, own: Any, allow_pickle: bool) -> Any:
    """Weights alone: they are read by the config of the checkpoint's own."""
    tensors = read_tensors(path, allow_pickle)
    with init_empty_weights():
        model = AutoencoderKL.from_config(own.config)
    with refusing("it does not fit this checkpoint"):
        named = in_precision(_named(tensors, own.config), own.dtype)
        found = model.load_state_dict(named, strict=False, assign=True)
    _refuse_missing(found.missing_keys)
    return model


def _named(tensors: dict[str, torch.Tensor], config: Any) -> dict[str, torch.Tensor]:
    """Under the names of the diffusers class, which some files have already."""
    if any("down_blocks." in name for name in tensors):
        return tensors
    if any(name.startswith(PREFIX) for name in tensors):
        tensors = {name: each for name, each in tensors.items() if name.startswith(PREFIX)}
    named = convert_ldm_vae_checkpoint(tensors, config)
    return {name: each for name, each in named.items() if each is not None}


def _refuse_missing(names: Any) -> None:
    if names:
        some = ", ".join(sorted(names)[:3])
        raise CheckpointError(f"it is no autoencoder of this kind: it lacks {some}")
