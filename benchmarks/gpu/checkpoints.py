"""What is measured: checkpoints of the shipped configs with random weights, made where they are
computed with, and small ones of the same kinds to try the commands themselves out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig

from server.catalog import Card, load_catalog
from server.models.single_file import CONFIGS, clip_tokenizer
from server.models.sources import read_json

SEED = 1
TINY_SIDE = 64
TINY_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Model:
    """One that can be asked for."""

    name: str
    card: Card
    configs: Path
    steps: int
    """Of a picture where as many as possible are drawn."""

    @property
    def side(self) -> int:
        """Of its pictures."""
        return self.card.native_size


NAMES = {
    "sd-v1": ("sd-v1-5", "sd-v1", 30),
    "sd-v2-1": ("sd-v2-1", "sd-v2", 30),
    "sdxl": ("sdxl-base", "sdxl-base", 20),
}
"""A card, shipped configs, and steps."""


def real(name: str) -> Model:
    """As it was published, but for its weights."""
    card, configs, steps = NAMES[name]
    return Model(name, load_catalog()[card], CONFIGS / configs, steps)


def tiny(name: str, folder: Path) -> Model:
    """The same with every width cut down, its configs in `folder`: for trying things out."""
    whole = real(name)
    configs = folder / name
    shutil.copytree(whole.configs, configs)
    for part, change in SHRUNK.items():
        path = configs / part / "config.json"
        if path.exists():
            path.write_text(json.dumps(read_json(path) | change))
    _match_widths(configs)
    card = whole.card.model_copy(update={"native_size": TINY_SIDE})
    return Model(name, card, configs, steps=6)


class RandomWeights:
    """Parts of these configs as their classes make them, seeded: a `Source` that reads no file.

    Linear layers and convolutions are never zero that way, norms keep every sum in bounds, and so
    nothing overflows on the way to a picture.
    """

    def __init__(self, configs: Path, device: torch.device) -> None:
        self.configs = configs
        self.made: dict[str, Any] = {}
        """Models and tokenizers by the names of their parts; the very ones that were given out."""
        self._device = device

    def has(self, part: str) -> bool:
        """Whether it has a config."""
        return (self.configs / part).is_dir()

    def check(self, part: str) -> None:
        """It has no weights to check."""

    def weights_bytes(self, part: str) -> int:
        """Nothing is read."""
        return 0

    def model(self, part: str, kind: Any, dtype: torch.dtype) -> Any:
        """The part, on the device at once."""
        config = read_json(self.configs / part / "config.json")
        torch.manual_seed(SEED)
        with _by_default(dtype), self._device:
            if part.startswith("text_encoder"):
                model = kind(CLIPTextConfig(**config))
            else:
                model = kind.from_config(config)
        self.made[part] = model
        return model

    def tokenizer(self, part: str) -> Any:
        """CLIP's."""
        self.made[part] = clip_tokenizer(self.configs / part)
        return self.made[part]


@contextmanager
def _by_default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


TEXT = {
    "hidden_size": TINY_WIDTH,
    "intermediate_size": 2 * TINY_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": TINY_WIDTH,
}
SHRUNK: dict[str, dict[str, Any]] = {
    "text_encoder": TEXT,
    "text_encoder_2": TEXT,
    "unet": {"layers_per_block": 1, "norm_num_groups": 8, "sample_size": TINY_SIDE // 8},
    "vae": {
        "block_out_channels": [8, 8, 16, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": TINY_SIDE,
    },
}


def _match_widths(configs: Path) -> None:
    path = configs / "unet" / "config.json"
    unet = read_json(path)
    levels = len(unet["block_out_channels"])
    encoders = len(list(configs.glob("text_encoder*")))
    unet["block_out_channels"] = [TINY_WIDTH] + [2 * TINY_WIDTH] * (levels - 1)
    unet["attention_head_dim"] = 2
    unet["cross_attention_dim"] = TINY_WIDTH * encoders
    if "transformer_layers_per_block" in unet:
        unet["transformer_layers_per_block"] = 1
        unet["addition_time_embed_dim"] = 8
        unet["projection_class_embeddings_input_dim"] = TINY_WIDTH + 6 * 8
    path.write_text(json.dumps(unet))
