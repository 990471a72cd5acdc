"""Puts the trained parts together as an ordinary diffusers folder in half precision."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from demo import tokenizer, unet

TARGET = Path(__file__).parents[1] / "server" / "models" / "demo"
CARD = Path(__file__).parent / "MODEL_CARD.md"


def pipeline_of(work: Path, vae: Path) -> StableDiffusionPipeline:
    """The trained parts as one pipeline."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(work / "unet"),
        scheduler=DPMSolverMultistepScheduler.from_config(unet.SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def forget_origin(config: Path) -> None:
    """Drop the folder of this machine that a part was loaded from."""
    settings = json.loads(config.read_text())
    settings.pop("_name_or_path", None)
    config.write_text(json.dumps(settings, indent=2) + "\n")


def assemble(work: Path, vae: Path, target: Path) -> None:
    """Write the folder beside ``target``, then swap it in, so that no reader sees half of it."""
    fresh, stale = (target.with_name(f".{target.name}.{state}") for state in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline = pipeline_of(work, vae).to(dtype=torch.float16)
    pipeline.save_pretrained(fresh)
    tokenizer.save(pipeline.tokenizer, fresh / "tokenizer")
    shutil.copyfile(CARD, fresh / "README.md")
    for part in ("unet", "vae"):
        forget_origin(fresh / part / "config.json")
    for file in fresh.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes its files private
    if target.exists():
        target.rename(stale)
    fresh.rename(target)
    shutil.rmtree(stale, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder with the trained parts")
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--vae", type=Path, help="another autoencoder than the one in there")
    options = parser.parse_args()
    assemble(options.work, options.vae or options.work / "vae", options.target)
    size = sum(file.stat().st_size for file in options.target.rglob("*") if file.is_file())
    print(f"{options.target}: {size / 1e6:.2f} MB")
