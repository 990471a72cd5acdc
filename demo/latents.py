"""Encodes scenes once, so that training the U-Net never runs the autoencoder."""

from __future__ import annotations

import argparse
import pickle
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from demo.autoencoder import to_tensor
from demo.scenes import Scene, draw, sample_scene, split_triples


@torch.inference_mode()
def encode(vae: AutoencoderKL, scenes: list[Scene], batch: int = 32) -> Tensor:
    """Posterior means, unscaled: (len(scenes), 4, 16, 16)."""
    parts = []
    for start in range(0, len(scenes), batch):
        pictures = to_tensor([draw(scene) for scene in scenes[start : start + batch]])
        parts.append(vae.encode(pictures).latent_dist.mean)
    return torch.cat(parts)


def make(vae_folder: Path, file: Path, count: int, seed: int = 11) -> None:
    """Sample scenes, store them with their latents, and set the autoencoder's scaling factor."""
    rng = random.Random(seed)
    triples, _ = split_triples()
    scenes = [sample_scene(rng, triples) for _ in range(count)]
    vae = AutoencoderKL.from_pretrained(vae_folder).eval().to(memory_format=torch.channels_last)
    latents = encode(vae, scenes)
    scale = 1 / latents.std().item()
    vae.register_to_config(scaling_factor=scale)
    vae.save_config(vae_folder)
    file.write_bytes(pickle.dumps((scenes, (latents * scale).numpy())))
    print(f"{count} scenes, scale {scale:.4f}, channel means {latents.mean((0, 2, 3)).tolist()}")


def load(file: Path) -> tuple[list[Scene], Tensor]:
    """Scenes and their scaled latents, (count, 4, 16, 16)."""
    scenes, latents = pickle.loads(file.read_bytes())
    return scenes, torch.from_numpy(latents)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    options = parser.parse_args()
    make(options.vae, options.file, options.count)
