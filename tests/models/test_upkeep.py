"""What a checkpoint keeps, as an operator reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from server.models.diffusion import LatentDiffusion
from server.models.loading import load, load_parts
from server.models.memory import MemoryGauge
from server.models.upkeep import Upkeep
from server.spec import Lora
from tests.builders import a_spec
from tests.models import loras, tiny, zoo
from tests.models.conftest import Checkpoint
from tests.models.drawing import prepare

UNGUIDED = {"width": 64, "height": 64, "guidance_scale": 1.0}


def asked(denoiser: LatentDiffusion, cache: str) -> list[tuple[int, int]]:
    """Hits and misses."""
    return [(tally.hits, tally.misses) for tally in denoiser.upkeep.caches()[cache]]


def test_a_prompt_is_encoded_once_and_found_then(v1: Checkpoint) -> None:
    spec = a_spec(prompt="asked for by nobody else", **UNGUIDED)
    [(hits, misses)] = asked(v1.denoiser, "prompt")
    for found in range(3):
        prepare(v1.denoiser, spec)
        assert asked(v1.denoiser, "prompt") == [(hits + found, misses + 1)]


def test_each_text_encoder_is_told_of(replica: Callable[[str], Checkpoint]) -> None:
    assert len(asked(replica("sdxl-base").denoiser, "prompt")) == 2


def test_a_lora_is_read_once(replica: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    folder = replica("sd-v1").folder
    loras.write(tmp_path / "Lora" / "style.safetensors", folder, loras.Form.KOHYA)
    denoiser = load(zoo.card("sd-v1", folder), "cpu", models_dir=tmp_path)
    for scale in (0.5, 0.7, 0.7):
        prepare(denoiser, a_spec(loras=(Lora(name="style", scale=scale),), **UNGUIDED))
    assert asked(denoiser, "lora") == [(2, 1)]
    assert asked(denoiser, "blend") == [(1, 2)]
    assert asked(denoiser, "autoencoder") == [(0, 0)]


def test_the_weights_of_each_part_are_told(v1: Checkpoint) -> None:
    told = v1.denoiser.upkeep.memory_bytes()
    assert set(told) == {"unet", "autoencoder", "text_encoders", "other", "free"}
    assert told["unet"] + told["autoencoder"] + told["text_encoders"] >= (
        4 * v1.denoiser.parameters
    )
    assert told["other"] > 0
    assert told["free"] > 0


def test_weights_are_told_of_while_they_are_on_the_device(v1: Checkpoint) -> None:
    """One without memory stands for a GPU."""
    parts, there = load_parts(tiny.card(v1.folder), "cpu"), torch.device("meta")
    parts.unet.to(there)
    parts.vae.to(there)
    upkeep = Upkeep(parts, v1.denoiser._conditioner, v1.denoiser._adapters)
    usual, told = v1.denoiser.upkeep.memory_bytes(), upkeep.memory_bytes()
    assert told["text_encoders"] == 0 < usual["text_encoders"]
    assert told["unet"] == usual["unet"]
    parts.readers[0].encoder.to(there)  # as a visitor is for the length of a call
    assert upkeep.memory_bytes()["text_encoders"] == usual["text_encoders"]


def test_a_gpu_that_does_not_answer_has_nothing_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(device: torch.device) -> Any:
        raise torch.AcceleratorError("CUDA error: device is lost")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lost)
    assert MemoryGauge(torch.device("cuda:0")).free_bytes() == 0


def test_what_the_allocator_has_in_reserve_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"mem_get_info": (5, 100), "memory_reserved": 30, "memory_allocated": 20}
    for name, figure in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, figure=figure: figure)
    assert MemoryGauge(torch.device("cuda:0")).free_bytes() == 15
