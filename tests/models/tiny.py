"""Checkpoints of real diffusers classes at tiny sizes, with random weights from fixed seeds.

They draw nothing a person would recognise; they are for what does not depend on meaning, such as
agreement with diffusers to the last digit. Also imported by the benchmarks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from server.catalog import Card

WIDTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def sd_v1(folder: Path) -> Path:
    """Like Stable Diffusion v1: predicts noise, quick GELU, PNDM. Native size 64.

    The UNet has 0.8 M parameters: at 8 x 8 latents overhead shows and arithmetic does not, which
    is what the launch-bound benchmarks want.
    """
    return save(folder, PNDMScheduler(skip_prk_steps=True, **NOISE))


def sd_v2(folder: Path) -> Path:
    """Like Stable Diffusion v2: predicts v, OpenCLIP's GELU and padding, DDIM. Native size 64."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", **NOISE)
    return save(folder, scheduler, hidden_act="gelu", pad_token="!")


def sd_inpainting(folder: Path) -> Path:
    """Like an inpainting checkpoint: nine input channels."""
    return save(folder, PNDMScheduler(skip_prk_steps=True, **NOISE), in_channels=9)


def save(
    folder: Path,
    scheduler: Any,
    *,
    hidden_act: str = "quick_gelu",
    pad_token: str = END,
    in_channels: int = 4,
) -> Path:
    """A checkpoint folder as `save_pretrained` writes it."""
    torch.manual_seed(0)
    scheduler.register_to_config(clip_sample=False)  # as in all of Stable Diffusion's own files
    tokenizer = _tokenizer(pad_token)
    pipeline = StableDiffusionPipeline(
        unet=_unet(in_channels),
        vae=_vae(),
        text_encoder=_text_encoder(tokenizer, hidden_act),
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def card(folder: Path, **changes: Any) -> Card:
    """A card for a folder made here."""
    fields = {
        "name": "tiny",
        "family": "sd",
        "source": str(folder),
        "native_size": 64,
        "prediction_type": "epsilon",
        "tasks": ["text-to-image"],
        "defaults": {"sampler": "ddim"},
        "limits": {"max_pixels": 65536},
    }
    return Card.model_validate(fields | changes)


def _unet(in_channels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    ).eval()


def _text_encoder(tokenizer: CLIPTokenizer, hidden_act: str) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=hidden_act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def _tokenizer(pad_token: str) -> CLIPTokenizer:
    """CLIP's byte alphabet without merges: every letter is a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [f"{letter}</w>" for letter in letters] + [START, END]
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token=pad_token, model_max_length=77)
