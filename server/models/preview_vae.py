"""The small autoencoder that decodes previews where a card names one.

It is made to be quick, not exact, so nothing but previews goes through it. Knows no requests.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny

from server.catalog import Card
from server.errors import CheckpointError, DarkroomError
from server.models.autoencoder import Autoencoder
from server.models.device import device_errors
from server.models.parts import Parts
from server.models.replacement_vae import find_vae
from server.models.shelf import CONFIG
from server.models.sources import read_json, refusing

KIND = "AutoencoderTiny"


def with_preview_vae(parts: Parts, card: Card, models: Path | None) -> Parts:
    """The parts with the autoencoder for previews that the card names, where it names one.

    Raises:
        CheckpointError: it is not there or cannot be used; says why.
    """
    if not card.preview_vae:
        return parts
    try:
        tiny = _read(find_vae(card.preview_vae, models))
        _check(tiny, parts)
    except DarkroomError as error:
        raise CheckpointError(f"checkpoint {card.name!r}: its preview_vae: {error}") from error
    tiny.requires_grad_(False).eval()
    with device_errors():
        tiny.to(parts.device, parts.dtype, memory_format=torch.channels_last)
    return replace(parts, preview_vae=tiny)


def _read(path: Path) -> Any:
    if not path.is_dir():
        raise CheckpointError(f"{path.name} is no diffusers folder")
    kind = read_json(path / CONFIG).get("_class_name")
    if kind != KIND:
        raise CheckpointError(f"{path.name} is of class {kind}, and should be an {KIND}")
    with refusing(f"{path.name} cannot be read"):
        tiny, found = AutoencoderTiny.from_pretrained(
            path, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    if missing := sorted(found["missing_keys"]):
        raise CheckpointError(f"{path.name} is not whole: it lacks {', '.join(missing[:3])}")
    return tiny


def _check(tiny: Any, parts: Parts) -> None:
    """That it reads what the checkpoint's own makes pictures of, and makes them as large."""
    theirs, own = Autoencoder(tiny), Autoencoder(parts.vae)
    for what in ("channels", "pixels_per_latent"):
        one, other = getattr(theirs, what), getattr(own, what)
        if one != other:
            words = what.replace("_", " ")
            raise CheckpointError(f"it has {one} {words}, and the checkpoint has {other}")
