"""What no version runs faster than: operations counted, over what the device does of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.gpu.checkpoints import Model
from benchmarks.gpu.device import seconds
from server.models.sources import read_json

TOKENS = 77
MATRIX, TINY_MATRIX = 8192, 256
REPEATS = 10


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of one picture's parts, attention's own products included."""

    unet: int
    """Of one row."""
    decode: int
    encode: int
    """Of one prompt, by all text encoders."""

    def step(self, rows: int = 2) -> int:
        """Of a UNet call; a guided picture has two rows in it."""
        return rows * self.unet

    def picture(self, steps: int) -> int:
        """Of a guided one: prompt and negative prompt, its steps, and what decodes it."""
        return 2 * self.encode + steps * self.step() + self.decode


def flops(model: Model) -> Flops:
    """Counted on shapes alone; nothing is computed."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(_config(model, "unet"))
        vae = AutoencoderKL.from_config(_config(model, "vae"))
        encoders = [
            CLIPTextModel(CLIPTextConfig(**_config(model, path.name)))
            for path in sorted(model.configs.glob("text_encoder*"))
        ]
        side = model.side // 2 ** (len(vae.config.block_out_channels) - 1)
        latents = torch.empty(1, unet.config.in_channels, side, side)
        tokens = torch.empty(1, TOKENS, dtype=torch.long)
        return Flops(
            unet=_counted(unet, latents, torch.empty(1), **unet_conditions(unet, 1)),
            decode=_counted(vae.decode, latents),
            encode=sum(_counted(encoder, tokens) for encoder in encoders),
        )


def unet_conditions(unet: Any, rows: int, **made: Any) -> dict[str, Any]:
    """What a UNet is told beside latents and timesteps, of made-up values."""
    config = unet.config
    told: dict[str, Any] = {
        "encoder_hidden_states": torch.randn(rows, TOKENS, config.cross_attention_dim, **made)
    }
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        told["added_cond_kwargs"] = {
            "text_embeds": torch.randn(rows, width, **made),
            "time_ids": torch.randn(rows, 6, **made),
        }
    return told


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Of a large product of random matrices: the rate that shares are told of."""
    size = MATRIX if device.type == "cuda" else TINY_MATRIX
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def products() -> None:
        for _ in range(REPEATS):
            left @ right

    times = [seconds(products, device) for _ in range(1 + REPEATS)][1:]
    return REPEATS * 2 * size**3 / statistics.median(times)


def _config(model: Model, part: str) -> dict[str, Any]:
    return read_json(model.configs / part / "config.json")


def _counted(call: Any, *arguments: Any, **named: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*arguments, **named)
    return int(counter.get_total_flops())
