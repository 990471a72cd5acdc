"""What everybody draws with, and what everybody has to go through."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from benchmarks.gpu.checkpoints import RandomWeights
from benchmarks.peers.contestants import DARKROOM, GROUPS, LITSERVE, LOCK, peers
from benchmarks.peers.loads import Course
from benchmarks.peers.orders import Mix
from benchmarks.peers.places import Checkpoint, Peer
from server.catalog import load_catalog
from server.models.single_file import CONFIGS
from server.models.sources import locate

REAL = "sd-v1-random"
CARD = """
[checkpoints.{name}]
extends = "sd-v1-5"
description = "Stable Diffusion v1 with random weights"
source = "{folder}"
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint, the course, and who takes part."""

    checkpoint: Checkpoint
    course: Course
    peers: dict[str, Peer]


def demo() -> Subject:
    """The one that ships, and everybody."""
    mix = Mix(sides=(128, 128, 96), steps=(6, 10, 10, 16))
    course = Course(mix, {0.5: 16, 0.7: 16, 0.9: 72})
    return Subject(Checkpoint("demo", locate(load_catalog()["demo"])), course, peers())


@contextlib.contextmanager
def real() -> Iterator[Subject]:
    """Stable Diffusion v1 at its real size with random weights, small pictures, and those whom the
    bars are about: each of them needs 5 GB of memory."""
    with tempfile.TemporaryDirectory() as name:
        folder, catalog = Path(name) / REAL, Path(name) / "catalog.toml"
        _save(folder)
        catalog.write_text(CARD.format(name=REAL, folder=folder))
        course = Course(Mix(sides=(128, 128, 64), steps=(3, 4, 4, 6)), {0.9: 24}, wave=16)
        few = {who: peer for who, peer in peers().items() if who in FEW}
        yield Subject(Checkpoint(REAL, folder, catalog), course, few)


FEW = (DARKROOM, LOCK, GROUPS, LITSERVE)


def _save(folder: Path) -> None:
    weights = RandomWeights(CONFIGS / "sd-v1", torch.device("cpu"))
    StableDiffusionPipeline(
        unet=weights.model("unet", UNet2DConditionModel, torch.float32),
        vae=weights.model("vae", AutoencoderKL, torch.float32),
        text_encoder=weights.model("text_encoder", CLIPTextModel, torch.float32),
        tokenizer=weights.tokenizer("tokenizer"),
        scheduler=PNDMScheduler.from_pretrained(CONFIGS / "sd-v1" / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
