"""The layers that a LoRA can change, under all the names that trainers give them.

Every name is made from the checkpoint's own layers, so one that is found is there, and one that is
not found is of another checkpoint. Knows no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from server.models.parts import Parts

UNET = "unet"
FIRST, SECOND = "text_encoder", "text_encoder_2"
PREFIXES = {
    UNET: ("unet_", ""),
    FIRST: ("text_encoder_", "te_", "te1_"),
    SECOND: ("text_encoder_2_", "te2_"),
}
"""How names begin: diffusers', then kohya's."""

RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
MIDDLE = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
RESAMPLER = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
MIDDLE_BLOCK = re.compile(r"mid_block\.((?:resnets|attentions)\.\d)\.(.+)")
OLD_ATTENTION = re.compile(r"(.*\.attn[12])\.(to_[qkv]|to_out)(?:\.0)?")
OLD_PROJECTION = re.compile(r"(.*\.self_attn)\.(q|k|v|out)_proj")


class Place(NamedTuple):
    """A layer of a part, by the path of its module."""

    part: str
    layer: str


class Places:
    """The linear layers and convolutions of one checkpoint."""

    def __init__(self, parts: Parts) -> None:
        self.parts: dict[str, Any] = {UNET: parts.unet}
        for reader in parts.readers:
            projects = hasattr(reader.encoder, "text_projection")
            self.parts[SECOND if projects else FIRST] = reader.encoder
        self.cross_attention: int = parts.unet.config.cross_attention_dim
        self._weights: dict[Place, torch.Size] = {}
        self._names: dict[str, Place] = {}
        for part, model in self.parts.items():
            for layer, module in adaptable(model).items():
                place = Place(part, layer)
                self._weights[place] = module.weight.shape
                for name in self._aliases(place):
                    self._names[_flat(name)] = place

    def find(self, name: str) -> Place | None:
        """The layer of this name, in whichever way it is written."""
        flat = _flat(name.removeprefix("base_model.model."))
        return self._names.get(flat.removeprefix("lora_"))

    def shape(self, place: Place) -> torch.Size:
        """Of the weight there."""
        return self._weights[place]

    def _aliases(self, place: Place) -> Iterator[str]:
        if place.part == UNET:
            layers = list(_unet_names(place.layer, self.parts[UNET]))
        else:
            layers = list(_encoder_names(place.layer))
        for prefix in PREFIXES[place.part]:
            yield from (prefix + layer for layer in layers)


def adaptable(model: Any) -> dict[str, Any]:
    """The modules that a low-rank change can be added to, by their paths."""
    kinds = torch.nn.Linear, torch.nn.Conv2d
    return {path: module for path, module in model.named_modules() if isinstance(module, kinds)}


def _unet_names(layer: str, unet: Any) -> Iterator[str]:
    """Of diffusers, of its old attention processors, and of the original training code."""
    yield layer
    old = OLD_ATTENTION.fullmatch(layer)
    if old:
        yield f"{old[1]}.processor.{old[2]}"
    original = _original(layer, unet)
    if original:
        yield original


def _original(layer: str, unet: Any) -> str | None:
    per_block = unet.config.layers_per_block
    if layer in ENDS:
        return ENDS[layer]
    if middle := MIDDLE_BLOCK.fullmatch(layer):
        return f"middle_block.{MIDDLE[middle[1]]}.{RESNET.get(middle[2], middle[2])}"
    if not isinstance(per_block, int):
        return None
    if inner := BLOCK.fullmatch(layer):
        number = int(inner[2]) * (per_block + 1) + int(inner[4])
        side = f"input_blocks.{number + 1}" if inner[1] == "down" else f"output_blocks.{number}"
        if inner[3] == "attentions":
            return f"{side}.1.{inner[5]}"
        return f"{side}.0.{RESNET.get(inner[5], inner[5])}"
    if outer := RESAMPLER.fullmatch(layer):
        last = (int(outer[2]) + 1) * (per_block + 1)
        if outer[1] == "down":
            return f"input_blocks.{last}.0.op"
        attends = hasattr(unet.up_blocks[int(outer[2])], "attentions")
        return f"output_blocks.{last - 1}.{2 if attends else 1}.conv"
    return None


def _encoder_names(layer: str) -> Iterator[str]:
    """With and without `text_model`, which transformers 5 took away from one of the classes."""
    inner = layer.removeprefix("text_model.")
    for name in (inner, f"text_model.{inner}"):
        yield name
        old = OLD_PROJECTION.fullmatch(name)
        if old:
            yield f"{old[1]}.to_{old[2]}"


def _flat(name: str) -> str:
    """Kohya's names have no dots; without them diffusers' are the same."""
    return name.replace(".", "_")
