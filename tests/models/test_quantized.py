"""Weights in eight bits: what is drawn is alike, LoRAs work as ever, and where it cannot be, that
is said before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server.catalog import Card, load_catalog
from server.errors import CheckpointError
from server.models import quantized
from server.models.diffusion import LatentDiffusion
from server.models.loading import load, load_parts
from server.models.quantized import check_quantization
from server.spec import Lora, Quantization
from tests import builders
from tests.models import loras, tiny, zoo
from tests.models.conftest import Checkpoint
from tests.models.drawing import Guest, apart, decoded, draw, draw_together
from tests.models.test_adapters import SIZES

Replica = Callable[[str], Checkpoint]
TOLERANCE = 1e-4
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 4}
a_spec = partial(builders.a_spec, **SMALL)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def package() -> None:
    """torchao, without which these would test nothing."""
    pytest.importorskip("torchao")


@pytest.fixture
def ours(package: None, v1: Checkpoint, tmp_path: Path) -> LatentDiffusion:
    return load(in_int8(v1), "cpu", models_dir=tmp_path)


def in_int8(checkpoint: Checkpoint) -> Card:
    return tiny.card(checkpoint.folder, quantization="int8")


def linears(denoiser: LatentDiffusion) -> list[Any]:
    return [each for each in denoiser._unet.modules() if isinstance(each, torch.nn.Linear)]


def weights_of(each: Any) -> int:
    """Bytes, as they are kept."""
    kept: torch.Tensor = each.weight.qdata
    return kept.nbytes


def test_every_linear_layer_of_the_unet_is_kept_in_eight_bits(ours: LatentDiffusion) -> None:
    assert linears(ours)
    assert all(weights_of(each) == each.weight.numel() for each in linears(ours))
    assert ours.dtype is torch.float32


@pytest.mark.parametrize("name", ["sd-v1", "sd-v2", "sdxl-base"])
def test_a_picture_of_eight_bits_is_alike_and_not_equal(
    package: None, replica: Replica, name: str
) -> None:
    exact = replica(name)
    denoiser = load(zoo.card(name, exact.folder, quantization="int8"), "cpu")
    sizes = {} if name != "sdxl-base" else {"sdxl": SIZES}
    one, other = (draw(each, a_spec(**sizes)) for each in (exact.denoiser, denoiser))
    assert 1e-5 < apart(other.latents, one.latents) < 0.05


def test_the_demo_draws_the_same_thing(package: None, one_core: None) -> None:
    card = load_catalog()["demo"]
    spec = a_spec(width=128, height=128, num_inference_steps=8)
    exact, kept = (
        decoded(denoiser, draw(denoiser, spec)).astype(int)
        for denoiser in (load(c, "cpu") for c in (card, _quantized(card)))
    )
    assert 0 < np.abs(exact - kept).mean() < 2


def test_it_is_the_same_alone_and_in_company(ours: LatentDiffusion) -> None:
    specs = [a_spec(seed=seed, guidance_scale=scale) for seed, scale in ((1, 5.0), (2, 1.0))]
    together = draw_together(ours, [Guest(spec, joins=i) for i, spec in enumerate(specs)])
    for spec, state in zip(specs, together, strict=True):
        assert apart(state.latents, draw(ours, spec).latents) < TOLERANCE


def test_a_lora_adds_to_it_what_it_adds_to_the_exact_one(
    ours: LatentDiffusion, v1: Checkpoint, tmp_path: Path
) -> None:
    loras.write(tmp_path / "Lora" / "ink.safetensors", v1.folder, unet=loras.UNET)
    worn = (Lora(name="ink", scale=0.8),)
    exact = load(tiny.card(v1.folder), "cpu", models_dir=tmp_path)
    bare, dressed = draw(ours, a_spec()).latents, draw(ours, a_spec(loras=worn)).latents
    assert apart(dressed, bare) > 0.1
    assert apart(dressed, draw(exact, a_spec(loras=worn)).latents) < 0.05
    assert torch.equal(draw(ours, a_spec()).latents, bare)


def test_without_a_word_nothing_is_quantized(v1: Checkpoint) -> None:
    assert tiny.card(v1.folder).quantization is Quantization.NONE
    assert all(type(each.weight) is torch.nn.Parameter for each in linears(v1.denoiser))


def test_without_the_package_it_is_said_how_to_get_it(
    v1: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(CheckpointError, match=r"'tiny': .*int8.* pip install '\.\[quantized\]'"):
        load_parts(in_int8(v1), "cpu")


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "words"),
    [
        (CPU, (9, 0), torch.bfloat16, "needs a GPU that computes in fp8 .*: cpu"),
        (GPU, (8, 6), torch.bfloat16, "needs a GPU that computes in fp8 .*: cuda"),
        (GPU, (8, 9), torch.float16, "needs DARKROOM_DTYPE=bfloat16, not float16"),
    ],
)
def test_a_device_that_cannot_compute_in_fp8_is_named(
    v1: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    capability: tuple[int, int],
    dtype: torch.dtype,
    words: str,
) -> None:
    monkeypatch.setattr(quantized, "PACKAGE", "torch")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with pytest.raises(CheckpointError, match=f"'tiny': quantization = 'fp8' {words}"):
        check_quantization(tiny.card(v1.folder, quantization="fp8"), device, dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_a_gpu_draws_alike_too(package: None, v1: Checkpoint, quantization: str) -> None:
    exact, kept = (
        draw(load(tiny.card(v1.folder, **how), "cuda", "bfloat16"), a_spec()).latents
        for how in ({}, {"quantization": quantization})
    )
    assert apart(kept.float(), exact.float()) < 0.2


def _quantized(card: Card) -> Card:
    return card.model_copy(update={"quantization": Quantization.INT8})
