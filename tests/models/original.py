"""Writes a diffusers folder as its original single file: the names of the training code.

The inverse of what server.models.single_file asks diffusers to do, written down independently.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding": "label_emb",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
}
OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
IN_PROJ = re.compile(r"(.*)self_attn\.q_proj\.(weight|bias)")


def write_original(folder: Path, file: Path) -> Path:
    """The whole checkpoint in one file; a `.ckpt` is pickled as the trainer did it."""
    tensors = original(folder)
    if file.suffix == ".ckpt":
        torch.save({"state_dict": tensors, "global_step": 7}, file)
    else:
        save_file(tensors, file, {"format": "pt"})
    return file


def original(folder: Path) -> Tensors:
    """Every tensor of the folder under its original name."""
    index = json.loads((folder / "model_index.json").read_text())
    xl = "XL" in index["_class_name"]
    tensors = _under("model.diffusion_model.", _unet(folder)) | _under(
        "first_stage_model.", _vae(folder)
    )
    if (
        not xl
        and json.loads((folder / "text_encoder/config.json").read_text())["hidden_act"] == "gelu"
    ):
        return tensors | _under("cond_stage_model.model.", _open_clip(folder / "text_encoder"))
    if not xl:
        return tensors | _under("cond_stage_model.transformer.text_model.", _clip(folder))
    place = 0
    if (folder / "text_encoder").is_dir():
        tensors |= _under("conditioner.embedders.0.transformer.text_model.", _clip(folder))
        place = 1
    return tensors | _under(
        f"conditioner.embedders.{place}.model.", _open_clip(folder / "text_encoder_2")
    )


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor.contiguous() for name, tensor in tensors.items()}


def _renamed(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        name = re.sub(rf"(^|\.){re.escape(new)}(?=\.|$)", rf"\g<1>{old}", name)
    return name


def _unet(folder: Path) -> Tensors:
    tensors = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    layers = json.loads((folder / "unet" / "config.json").read_text())["layers_per_block"]
    attending = {name.split(".")[1] for name in tensors if re.match(r"up_blocks\.\d+\.att", name)}

    def place(match: re.Match[str]) -> str:
        side, block, kind, layer = match[1], int(match[2]), match[3], int(match[4])
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
        if kind == "upsamplers":
            slot = 2 if match[2] in attending else 1
            return f"output_blocks.{block * (layers + 1) + layers}.{slot}.conv"
        slot = 0 if kind == "resnets" else 1
        if side == "down":
            return f"input_blocks.{1 + block * (layers + 1) + layer}.{slot}"
        return f"output_blocks.{block * (layers + 1) + layer}.{slot}"

    renamed = {}
    for name, tensor in tensors.items():
        if "resnets" in name:
            old = _renamed(name, RESNET)
        else:
            old = name.replace("samplers.0.conv", "samplers.0")
        old = _renamed(old, UNET_ENDS)
        renamed[re.sub(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)", place, old)] = tensor
    return renamed


def _vae(folder: Path) -> Tensors:
    tensors = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    blocks = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])

    def up(match: re.Match[str]) -> str:
        return f"up.{blocks - 1 - int(match[1])}."

    renamed = {}
    for name, tensor in tensors.items():
        old = _renamed(name, VAE)
        old = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", old)
        old = re.sub(r"up_blocks\.(\d+)\.", up, old).replace("resnets", "block")
        convolution = ".attn_1." in old and old.endswith("weight") and tensor.ndim == 2
        renamed[old] = tensor[:, :, None, None] if convolution else tensor
    return renamed


def _clip(folder: Path) -> Tensors:
    return _plain(load_file(folder / "text_encoder" / "model.safetensors"))


def _open_clip(folder: Path) -> Tensors:
    tensors = _plain(load_file(folder / "model.safetensors"))
    renamed: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if match := IN_PROJ.fullmatch(name):
            three = [tensors[name.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            renamed[_renamed(f"{match[1]}attn.in_proj_{match[2]}", OPEN_CLIP)] = torch.cat(three)
        elif name == "text_projection.weight":
            renamed["text_projection"] = tensor.T
        elif not re.search(r"self_attn\.[kv]_proj", name):
            renamed[_renamed(name, OPEN_CLIP)] = tensor
    return renamed


def _plain(tensors: Tensors) -> Tensors:
    """Before transformers 5 and after it, the same names."""
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
