"""The parts of an original single file: one state dict under the names of the training code.

Such a file holds weights alone. Which architecture it is shows in its keys and shapes; configs and
vocabulary are shipped for the known ones, a card may name a folder with others.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTokenizer

from server.catalog import Card
from server.errors import CheckpointError
from server.models.folder import read_tokenizer, refuse_missing
from server.models.sources import read_json, refusing
from server.models.tensors import in_precision, read_tensors
from server.models.vocabulary import clip_vocabulary

CONFIGS = Path(__file__).parent / "configs"
UNET = "model.diffusion_model."
OPEN_CLIP = ".model."
"""How the prefixes of text encoders end whose names are OpenCLIP's, not transformers'."""

PREFIXES = {
    "unet": (UNET,),
    "vae": ("first_stage_model.",),
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
    ),
    "text_encoder_2": ("conditioner.embedders.1.model.", "conditioner.embedders.0.model."),
}

KNOWN = {
    (768, 4): "sd-v1",
    (768, 9): "sd-v1-inpainting",
    (1024, 4): "sd-v2-base",
    (1024, 5): "sd-v2-depth",
    (1024, 7): "sd-x4-upscaler",
    (1024, 9): "sd-v2-inpainting",
    (1280, 4): "sdxl-refiner",
    (2048, 4): "sdxl-base",
    (2048, 9): "sdxl-inpainting",
}
"""The architecture by the width of the UNet's cross attention and its input channels."""


class SingleFile:
    """One file, and the folder with its configs."""

    def __init__(self, path: Path, card: Card, allow_pickle: bool = False) -> None:
        self._name = path.name
        self._tensors = read_tensors(path, allow_pickle)
        self._own_config = bool(card.config)
        self.configs = Path(card.config).expanduser() if card.config else self._shipped(card)
        if ("v_pred" in self._tensors) and card.prediction_type != "v_prediction":
            raise CheckpointError(f"{path.name} predicts v, its card says {card.prediction_type}")

    def has(self, part: str) -> bool:
        """Whether the file holds this part."""
        return self._prefix(part) is not None

    def check(self, part: str) -> None:
        """That the part has weights; that they are whole shows when they are read."""

    def weights_bytes(self, part: str) -> int:
        """The size of this part's tensors."""
        return sum(tensor.nbytes for tensor in self._of(part).values())

    def model(self, part: str, kind: Any, dtype: torch.dtype) -> Any:
        """The part, on the CPU.

        Raises:
            CheckpointError: tensors are missing, or have other shapes.
        """
        config = read_json(self.configs / part / "config.json")
        with refusing(f"the {part} of {self._name} is not of the architecture {self.configs.name}"):
            with init_empty_weights():
                model = _empty(kind, config)
            named = in_precision(self._converted(part, model, config), dtype)
            found = model.load_state_dict(named, strict=False, assign=True)
        refuse_missing(part, found.missing_keys)
        if part == "unet" and found.unexpected_keys:
            some = ", ".join(sorted(found.unexpected_keys)[:3])
            raise CheckpointError(f"the unet has tensors that {self.configs.name} has not: {some}")
        return model

    def tokenizer(self, part: str) -> Any:
        """CLIP's vocabulary with the padding of this architecture, or the one beside the configs.

        Raises:
            CheckpointError: it cannot be read.
        """
        if self._own_config:
            return read_tokenizer(self.configs / part)
        return clip_tokenizer(self.configs / part)

    @cached_property
    def _names(self) -> dict[str, str]:
        """The prefix of each part that is here."""
        found = {}
        for part, prefixes in PREFIXES.items():
            for prefix in prefixes:
                if any(name.startswith(prefix) for name in self._tensors):
                    found[part] = prefix
                    break
        return found

    def _prefix(self, part: str) -> str | None:
        return self._names.get(part)

    def _of(self, part: str) -> dict[str, torch.Tensor]:
        prefix = self._names[part]
        return {name: each for name, each in self._tensors.items() if name.startswith(prefix)}

    def _converted(self, part: str, model: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The part's tensors under the names of its diffusers or transformers class."""
        own, prefix = self._of(part), self._names[part]
        if part == "unet":
            return _tensors_of(convert_ldm_unet_checkpoint(own, config))
        if part == "vae":
            return _tensors_of(convert_ldm_vae_checkpoint(own, config))
        if prefix.endswith(OPEN_CLIP):
            named = convert_open_clip_checkpoint(model, own, prefix=prefix)
        else:
            named = convert_ldm_clip_checkpoint(own)
        if not hasattr(model, "text_model"):  # transformers 5 took it away from CLIPTextModel
            named = {name.removeprefix("text_model."): each for name, each in named.items()}
        return _tensors_of(named)

    def _shipped(self, card: Card) -> Path:
        first = self._tensors.get(f"{UNET}input_blocks.0.0.weight")
        attends = next((t for name, t in self._tensors.items() if _is_unet_attention(name)), None)
        if first is None or attends is None:
            raise CheckpointError(f"{self._name} {_what_else(self._tensors)}")
        if (first.ndim, attends.ndim) != (4, 2):
            raise CheckpointError(
                f"{self._name} is damaged: the tensors of its UNet have the shapes"
                f" {tuple(first.shape)} and {tuple(attends.shape)}, which no UNet has"
            )
        channels, width = first.shape[1], attends.shape[1]
        name = KNOWN.get((width, channels))
        if name is None:
            raise CheckpointError(
                f"{self._name} is of no known architecture: its UNet takes {channels}"
                f" channels and embeddings of {width}; name a folder with its configs in the"
                " card's `config`"
            )
        if name == "sd-v2-base" and card.prediction_type == "v_prediction":
            name = "sd-v2"
        return CONFIGS / name


def clip_tokenizer(folder: Path) -> Any:
    """CLIP's vocabulary with the padding that the config in `folder` tells.

    Raises:
        CheckpointError: there is no such config.
    """
    vocabulary, merges = clip_vocabulary()
    own = read_json(folder / "tokenizer_config.json")
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        pad_token=own["pad_token"],
        model_max_length=own["model_max_length"],
    )


def _is_unet_attention(name: str) -> bool:
    return name.startswith(UNET) and name.endswith("attn2.to_k.weight")


def _empty(kind: Any, config: dict[str, Any]) -> Any:
    if hasattr(kind, "load_config"):  # diffusers' own
        return kind.from_config(config)
    return kind(CLIPTextConfig(**config))


def _tensors_of(named: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _what_else(tensors: dict[str, torch.Tensor]) -> str:
    """What a file is that is no original Stable Diffusion checkpoint."""
    kinds = {
        "lora": "is a LoRA, not a checkpoint; put it into the Lora folder",
        "model_ema.": "holds averaged weights only, under names that are not read",
        "down_blocks.": "is a single part of a diffusers folder; name the whole folder",
        "double_blocks.": "is of another family: Flux",
        "joint_blocks.": "is of another family: Stable Diffusion 3",
    }
    for mark, what in kinds.items():
        if any(mark in name for name in tensors):
            return what
    return "is not an original Stable Diffusion checkpoint: it has no UNet"
