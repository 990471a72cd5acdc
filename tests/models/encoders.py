"""Pipelines of diffusers with tiny text encoders and nothing else, to ask what a prompt becomes."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WIDTH, WIDTH_2, PROJECTION = 32, 48, 24


def sd(pad_token: str = END) -> StableDiffusionPipeline:
    """Like v1's, or with the pad token "!" like v2's."""
    tokenizer = tokens(pad_token)
    torch.manual_seed(0)
    return StableDiffusionPipeline(
        vae=None,
        unet=None,
        text_encoder=text_encoder(tokenizer),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(**changes: Any) -> StableDiffusionXLPipeline:
    """Like SDXL base; `text_encoder=None, tokenizer=None` makes it like the refiner."""
    first, second = tokens(END), tokens("!")
    torch.manual_seed(0)
    parts = {
        "text_encoder": text_encoder(first),
        "tokenizer": first,
        "text_encoder_2": CLIPTextModelWithProjection(config(second, WIDTH_2)).eval(),
        "tokenizer_2": second,
    }
    return StableDiffusionXLPipeline(
        vae=None, unet=None, scheduler=EulerDiscreteScheduler(), **parts | changes
    )


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    encoder = CLIPTextModel(config(tokenizer, WIDTH)).eval()
    # Fresh norms leave a mean of zero, which no trained encoder has and emphasis divides by.
    torch.nn.init.normal_(encoder.final_layer_norm.bias)
    return encoder


def tokens(pad_token: str) -> CLIPTokenizer:
    """CLIP's byte alphabet and a few merges: most letters are a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e</w>")]
    merged = ["".join(pair) for pair in merges]
    known = letters + [f"{letter}</w>" for letter in letters] + [*merged, START, END]
    vocab = {token: number for number, token in enumerate(known)}
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad_token, model_max_length=77)


def config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=PROJECTION,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
