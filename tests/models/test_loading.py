"""A card becomes a checkpoint on a device, visibly, quietly, and whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from server.errors import CheckpointError
from server.models.loading import load
from tests.builders import a_spec
from tests.models import tiny
from tests.models.conftest import Checkpoint


@pytest.fixture
def folder(v1: Checkpoint, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(v1.folder, tmp_path / "copy")


def test_each_part_is_announced_with_the_bytes_done(v1: Checkpoint) -> None:
    told: list[tuple[str, int, int]] = []
    load(tiny.card(v1.folder), "cpu", progress=lambda *news: told.append(news))
    parts, done, totals = zip(*told, strict=True)
    assert parts == ("text_encoder", "unet", "vae", "tokenizer")
    assert done == tuple(sorted(done))
    assert done[0] == 0
    assert set(totals) == {done[-1]}


def test_nothing_is_said_on_stderr(v1: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    load(tiny.card(v1.folder), "cpu")
    assert capfd.readouterr() == ("", "")


def test_float16_files_become_float32_on_a_cpu(v1: Checkpoint, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(v1.folder, local_files_only=True)
    pipeline.to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    sd = load(tiny.card(tmp_path), "cpu")
    assert sd.dtype == sd._vae.dtype == torch.float32
    assert sd.prepare(a_spec(), 0).embeddings.dtype == torch.float32


@pytest.mark.parametrize("upcast", [True, False, None])
def test_an_autoencoder_that_overflows_in_float16_is_kept_in_float32(
    folder: Path, upcast: bool | None
) -> None:
    file = folder / "vae" / "config.json"
    config = json.loads(file.read_text())
    del config["force_upcast"]
    file.write_text(json.dumps(config | ({} if upcast is None else {"force_upcast": upcast})))
    sd = load(tiny.card(folder), "cpu", "float16")
    assert sd.dtype == torch.float16
    assert sd._vae.dtype == (torch.float32 if upcast else torch.float16)


def test_files_from_before_parts_were_renamed_are_read(folder: Path) -> None:
    text = folder / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(text).items()}
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(tensors | positions, text, {"format": "pt"})
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(vae)
    for after, before in new.items():
        tensors = {name.replace(after, before): tensor for name, tensor in tensors.items()}
    assert any("query" in name for name in tensors)
    save_file(tensors, vae, {"format": "pt"})
    load(tiny.card(folder), "cpu")


def test_a_missing_tensor_is_not_made_up(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if name.endswith("final_layer_norm.weight")))
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"text_encoder .*final_layer_norm\.weight"):
        load(tiny.card(folder), "cpu")


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"conv_in.bias": torch.zeros(3)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="the unet cannot be loaded"):
        load(tiny.card(folder), "cpu")


def test_a_tokenizer_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer"):
        load(tiny.card(folder), "cpu")


@pytest.mark.parametrize(
    ("device", "dtype", "words"),
    [
        ("toaster", "auto", "'toaster' is not the name of a device"),
        ("cuda:99", "auto", "cuda:99 is not there"),
        ("cpu", "int8", "'int8' is none of float32"),
    ],
)
def test_a_device_or_precision_that_is_not_there_is_named(
    v1: Checkpoint, device: str, dtype: str, words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        load(tiny.card(v1.folder), device, dtype)


def test_an_inpainting_checkpoint_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="9 channels instead of 4: it is an inpainting"):
        load(tiny.card(tiny.sd_inpainting(tmp_path)), "cpu")
