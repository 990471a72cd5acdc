"""Writes LoRA files as trainers do, and lets diffusers' pipelines wear them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.models import oracle, original

RANK, ALPHA = 4, 3.0
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
"""What kohya's trainers change without being asked for more."""
CONVOLUTIONS = ("conv1", "conv2", "time_emb_proj", "conv_shortcut", "samplers.0.conv")
"""What a LoCon changes besides."""
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


class Form(Enum):
    """Whose names a file has."""

    KOHYA = auto()
    KOHYA_ORIGINAL = auto()
    """Under the names of the original UNet, as for SDXL."""
    PEFT = auto()
    PEFT_SETTINGS = auto()
    """With peft's alpha beside the tensors."""
    DIFFUSERS = auto()
    PROCESSORS = auto()
    """Of diffusers' old attention processors."""


def write(
    file: Path,
    folder: Path,
    form: Form = Form.KOHYA,
    *,
    unet: tuple[str, ...] = UNET,
    text: bool = False,
    seed: int = 1,
    rank: int = RANK,
) -> Path:
    """A file of random changes, large enough to be seen, for the checkpoint in `folder`."""
    pipe, _ = oracle.pipeline(folder)
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for part, ends in _parts(pipe, unet, text).items():
        for layer, module in getattr(pipe, part).named_modules():
            if layer.endswith(ends) and hasattr(module, "weight"):
                tensors |= _layer(part, layer, module.weight, form, folder, generator, rank)
    assert tensors
    settings = {}
    if form is Form.PEFT_SETTINGS:
        own = {"r": rank, "lora_alpha": ALPHA}
        parts = _parts(pipe, unet, text)
        told = {f"{part}.{name}": value for part in parts for name, value in own.items()}
        settings["lora_adapter_metadata"] = json.dumps(told | _targets(tensors, parts))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, {"format": "pt"} | settings)
    return file


@contextmanager
def wearing(folder: Path, worn: Mapping[Path, float]) -> Iterator[None]:
    """The oracle draws with these."""
    pipe, _ = oracle.pipeline(folder)
    names = [file.stem for file in worn]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two are meant
        for file, name in zip(worn, names, strict=True):
            pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)
    pipe.set_adapters(names, list(worn.values()))
    try:
        yield
    finally:
        pipe.unload_lora_weights()


def _parts(pipe: Any, unet: tuple[str, ...], text: bool) -> dict[str, tuple[str, ...]]:
    parts = {"unet": unet} if unet else {}
    if text:
        parts |= {n: TEXT for n in ("text_encoder", "text_encoder_2") if hasattr(pipe, n)}
    return parts


def _layer(
    part: str,
    layer: str,
    weight: torch.Tensor,
    form: Form,
    folder: Path,
    generator: torch.Generator,
    rank: int,
) -> dict[str, torch.Tensor]:
    down = 0.2 * torch.randn(rank, *weight.shape[1:], generator=generator)
    ones = (1,) * (weight.ndim - 2)
    up = 0.2 * torch.randn(weight.shape[0], rank, *ones, generator=generator)
    if part != "unet":
        layer = f"text_model.{layer.removeprefix('text_model.')}"
    if form in (Form.KOHYA, Form.KOHYA_ORIGINAL):
        name = _kohya(part, layer, form, folder)
        alpha = torch.tensor(ALPHA)
        return {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": alpha,
        }
    if form is Form.PROCESSORS:
        name = layer.replace("attn1.", "attn1.processor.").replace("attn2.", "attn2.processor.")
        name = f"{part}.{name.removesuffix('.0')}_lora"
        return {f"{name}.down.weight": down, f"{name}.up.weight": up}
    if form is Form.DIFFUSERS:
        middle = "lora" if part == "unet" else "lora_linear_layer"
        name = f"{part}.{layer}.{middle}"
        return {f"{name}.down.weight": down, f"{name}.up.weight": up}
    name = f"{part}.{layer}"
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}


def _kohya(part: str, layer: str, form: Form, folder: Path) -> str:
    if part == "unet":
        if form is Form.KOHYA_ORIGINAL:
            layer = _original_names(folder)[f"{layer}.weight"].removesuffix(".weight")
        return f"lora_unet_{layer}".replace(".", "_")
    pipe, _ = oracle.pipeline(folder)
    two = hasattr(pipe, "text_encoder_2")
    number = "" if not two else "2" if part == "text_encoder_2" else "1"
    return f"lora_te{number}_{layer}".replace(".", "_")


def _original_names(folder: Path) -> dict[str, str]:
    """The UNet's names in the original code by those of diffusers: `_unet` keeps the order."""
    ours = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    return dict(zip(ours, original._unet(folder), strict=True))


def _targets(tensors: Mapping[str, torch.Tensor], parts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, list[str]] = {part: [] for part in parts}
    for name in tensors:
        part, _, layer = name.partition(".")
        if name.endswith(".lora_A.weight"):
            layer = layer.removesuffix(".lora_A.weight")
            found[part].append(
                layer.removeprefix("text_model.") if part == "text_encoder" else layer
            )
    return {f"{part}.target_modules": layers for part, layers in found.items()}
