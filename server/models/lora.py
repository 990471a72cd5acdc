"""LoRA files: reads those of kohya's trainers, diffusers and peft, and checks that they fit.

Knows no requests, and not how a change is applied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from server.errors import InvalidSpec
from server.models.peft_settings import METADATA, PeftSettings
from server.models.places import Place, Places
from server.models.tensors import read_safetensors

LAYER = re.compile(
    r"(?P<layer>.+?)"
    r"(?:\.lora_(?P<role>down|up|A|B)(?:\.\w+)?|[._]lora(?:_linear_layer)?\.(?P<old>down|up))"
    r"\.weight"
)
ALPHA = ".alpha"
LONGEST_NAME = 200
"""Letters of a tensor's name that a person is shown."""

KEY = re.compile(r"to_k(\b|_lora)")
MADE_FOR = {
    768: "Stable Diffusion v1",
    1024: "Stable Diffusion v2",
    1280: "the SDXL refiner",
    2048: "SDXL",
}
"""By the width of the cross attention."""

OTHERS = {
    "hada_": "is a LoHa",
    "lokr_": "is a LoKr",
    "dora_scale": "is a DoRA",
    "lora_magnitude_vector": "is a DoRA",
    "lora_mid": "is a LoCon with a Tucker decomposition",
    "oft_": "is an OFT",
    "on_input": "is an IA3",
    "bundle_emb": "has embeddings bundled with it",
    "double_blocks": "was made for another family: Flux",
    "single_transformer_blocks": "was made for another family: Flux",
    "joint_blocks": "was made for another family: Stable Diffusion 3",
    "lora_transformer_": "was made for another family, of diffusion transformers",
    "transformer.": "was made for another family, of diffusion transformers",
}
"""What a file is, by what some of its names hold."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """A change of one layer's weight: up times down times scale."""

    down: torch.Tensor  # (rank, *what the weight has after its first axis)
    up: torch.Tensor  # (out, rank)
    scale: float


@dataclass(frozen=True, slots=True)
class LoraFile:
    """What a file changes, on the CPU and in its own precision."""

    layers: Mapping[Place, LowRank]

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return sum(each.down.nbytes + each.up.nbytes for each in self.layers.values())


def read_lora(path: Path, places: Places) -> LoraFile:
    """The file, all of it: what would have to be left out makes it unfit.

    Raises:
        InvalidSpec: it is damaged, of another kind, or made for another checkpoint; says which.
    """
    tensors, written = _read(path)
    try:
        settings = PeftSettings(written)
        _check_width(tensors, places)
        layers = _gathered(tensors, places)
        return LoraFile({place: _fit(place, layers[place], settings, places) for place in layers})
    except InvalidSpec as error:
        raise InvalidSpec(f"the LoRA {path.name} {error.message}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidSpec(f"the LoRA {path.name} makes no sense: {error}") from error


def _read(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Its tensors and peft's settings."""
    try:
        with safe_open(path, "pt") as file:
            written = (file.metadata() or {}).get(METADATA, "{}")
        return read_safetensors(path), written
    except OSError as error:  # its text has the whole path, which is nobody's affair
        raise InvalidSpec(f"the LoRA {path.name} cannot be read: {error.strerror}") from error
    except (ValueError, SafetensorError) as error:
        raise InvalidSpec(f"the LoRA {path.name} cannot be read: {error}") from error


def _check_width(tensors: Mapping[str, torch.Tensor], places: Places) -> None:
    """Which checkpoint it was made for shows here first, and says most."""
    for name, tensor in tensors.items():
        found = LAYER.fullmatch(name)
        if not found or not _is_cross_attention(name) or tensor.ndim < 2:
            continue
        width, ours = tensor.shape[1], places.cross_attention
        if _role(found) == "down" and width != ours:
            made_for = MADE_FOR.get(width, "another kind of checkpoint")
            raise InvalidSpec(
                f"was made for {made_for}: its cross attention is {width} wide,"
                f" this checkpoint's is {ours}"
            )


def _is_cross_attention(name: str) -> bool:
    return KEY.search(name.partition("attn2")[2]) is not None


def _gathered(
    tensors: Mapping[str, torch.Tensor], places: Places
) -> dict[Place, dict[str, torch.Tensor]]:
    """The tensors of each layer by their roles: down, up and alpha."""
    layers: dict[Place, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        found = LAYER.fullmatch(name)
        layer, role = (found["layer"], _role(found)) if found else (name[: -len(ALPHA)], "alpha")
        if not found and not name.endswith(ALPHA):
            raise InvalidSpec(_not_read(name, tensors))
        place = places.find(layer)
        if place is None:
            raise InvalidSpec(_not_read(name, tensors, "names a layer that this checkpoint lacks"))
        layers.setdefault(place, {})[role] = tensor
    if not layers:
        raise InvalidSpec("is empty")
    return layers


def _role(found: re.Match[str]) -> str:
    return found["old"] or {"A": "down", "B": "up"}.get(found["role"], found["role"])


def _not_read(name: str, names: Mapping[str, Any], why: str = "holds what no LoRA has") -> str:
    for mark, what in OTHERS.items():
        if any(mark in each for each in names):
            return f"{what}, which is not supported"
    return f"{why}: {name[:LONGEST_NAME]}"


def _fit(
    place: Place, found: Mapping[str, torch.Tensor], settings: PeftSettings, places: Places
) -> LowRank:
    layer = f"{place.part}.{place.layer}"
    if not {"down", "up"} <= found.keys():
        raise InvalidSpec(f"lacks a half of the layer {layer}")
    down, up, weight = found["down"], found["up"], places.shape(place)
    rank = len(down) if down.ndim else 0
    wanted = torch.Size((rank, *weight[1:]))
    # Linear projections and convolutions of one pixel are the same, and trainers mix them.
    fits = _without_ones(down.shape) == _without_ones(wanted)
    if not (rank and fits and _without_ones(up.shape) == (weight[0], rank)):
        raise InvalidSpec(
            f"does not fit this checkpoint: at {layer} it has {tuple(down.shape)} and"
            f" {tuple(up.shape)}, and the layer is {tuple(weight)}"
        )
    if not (down.is_floating_point() and up.is_floating_point()):
        raise InvalidSpec(f"has no floating-point numbers at {layer}")
    alpha = found.get("alpha")
    scale = settings.scale(place, rank) if alpha is None else _number(alpha, layer) / rank
    return LowRank(down.reshape(wanted), up.flatten(1), scale)


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    return (*shape[:2], *(size for size in shape[2:] if size != 1))


def _number(alpha: torch.Tensor, layer: str) -> float:
    number = float(alpha) if alpha.numel() == 1 and not alpha.is_complex() else math.nan
    if not math.isfinite(number):
        raise InvalidSpec(f"has an alpha at {layer} that is no finite number")
    return number
