"""A card becomes a checkpoint on a device, visibly, quietly, and whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_map

from server.errors import CheckpointError
from server.models.device import on_device
from server.models.loading import load, load_parts
from server.models.parts import Parts
from server.models.placement import let_visit
from server.models.prompts import PromptEncoder
from server.workers.native import native_inputs, native_stage
from tests.models import zoo

V1 = "sd-v1"


@pytest.fixture(scope="module")
def made(one_core: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each replica once."""
    root = tmp_path_factory.mktemp("zoo")

    def make(name: str) -> Path:
        folder = root / name
        return folder if folder.is_dir() else zoo.build(name, folder)

    return make


@pytest.fixture
def folder(made: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the plainest that a test may spoil."""
    return Path(shutil.copytree(made(V1), tmp_path / "copy"))


def loaded(folder: Path, name: str = V1, **arguments: Any) -> Parts:
    return load_parts(zoo.card(name, folder), "cpu", **arguments)


def predicted(parts: Parts) -> torch.Tensor:
    """What the UNet says of one fixed input."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    read = torch.randn(2, 77, zoo.WIDTH, generator=generator)
    with on_device():
        found: torch.Tensor = parts.unet(noise, 500, read, return_dict=False)[0]
    return found


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_architecture_loads_and_draws(made: Callable[[str], Path], name: str) -> None:
    card = zoo.card(name, made(name))
    denoiser = load(card, "cpu")
    stage = native_stage(card, num_inference_steps=2)
    state = denoiser.prepare(stage, 0, native_inputs(stage))
    while state.steps_done < state.steps_total:
        [prediction] = denoiser.predict([state])
        denoiser.advance(state, prediction)
    [picture] = denoiser.decode([state])
    assert picture.array().shape == (card.native_size, card.native_size, 3)


def test_what_a_checkpoint_came_with_comes_along(made: Callable[[str], Path]) -> None:
    has = {
        name: (len(parts.readers), bool(parts.depth), bool(parts.safety))
        for name in zoo.ZOO
        for parts in [loaded(made(name), name)]
    }
    assert has == {
        **dict.fromkeys(zoo.ZOO, (1, False, False)),
        "sd-v1-safety": (1, False, True),
        "sd-v2-depth": (1, True, False),
        "sdxl-base": (2, False, False),
        "sdxl-inpainting": (2, False, False),
    }


def test_sdxl_says_what_becomes_of_an_empty_negative_prompt(made: Callable[[str], Path]) -> None:
    names = (V1, "sdxl-base", "sdxl-refiner")
    zeros = [loaded(made(name), name).zeros_for_empty_prompt for name in names]
    assert zeros == [False, True, False]


def test_each_part_is_announced_with_the_bytes_done(made: Callable[[str], Path]) -> None:
    told: list[tuple[str, int, int]] = []
    loaded(made("sd-v1-safety"), "sd-v1-safety", progress=lambda *news: told.append(news))
    parts, done, totals = zip(*told, strict=True)
    assert parts == ("text_encoder", "unet", "vae", "safety_checker", "tokenizer")
    assert done == tuple(sorted(done))
    assert done[0] == 0
    assert set(totals) == {done[-1]}


def test_nothing_is_said_on_stderr(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded(folder)
    assert capfd.readouterr() == ("", "")


def test_float16_files_become_float32_on_a_cpu(folder: Path, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    parts = loaded(tmp_path / "half")
    assert parts.dtype == parts.vae.dtype == parts.readers[0].encoder.dtype == torch.float32


@pytest.mark.parametrize("upcast", [True, False, None])
def test_an_autoencoder_that_overflows_in_float16_is_kept_in_float32(
    folder: Path, upcast: bool | None
) -> None:
    file = folder / "vae" / "config.json"
    config = json.loads(file.read_text())
    del config["force_upcast"]
    file.write_text(json.dumps(config | ({} if upcast is None else {"force_upcast": upcast})))
    parts = loaded(folder, dtype="float16")
    assert parts.dtype == torch.float16
    assert parts.vae.dtype == (torch.float32 if upcast else torch.float16)


def test_so_is_a_depth_estimator(made: Callable[[str], Path]) -> None:
    parts = loaded(made("sd-v2-depth"), "sd-v2-depth", dtype="bfloat16")
    assert parts.dtype == torch.bfloat16
    assert parts.depth is not None
    assert parts.depth.model.dtype == torch.float32


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
    loaded(folder)


def test_a_missing_tensor_is_not_made_up(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if name.endswith("final_layer_norm.weight")))
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"text_encoder .*final_layer_norm\.weight"):
        loaded(folder)


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"conv_in.bias": torch.zeros(3)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="the unet cannot be loaded"):
        loaded(folder)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_config_that_its_class_cannot_read_is_refused(folder: Path, part: str) -> None:
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"block_out_channels": 5}))
    with pytest.raises(CheckpointError, match=f"the {part} cannot be loaded: "):
        loaded(folder)


def test_a_tokenizer_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer"):
        loaded(folder)


@pytest.mark.parametrize(
    ("device", "dtype", "words"),
    [
        ("toaster", "auto", "'toaster' is not the name of a device"),
        ("cuda:99", "auto", "cuda:99 is not there"),
        ("cpu", "int8", "'int8' is none of float32"),
    ],
)
def test_a_device_or_precision_that_is_not_there_is_named(
    folder: Path, device: str, dtype: str, words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        load_parts(zoo.card(V1, folder), device, dtype)


@pytest.mark.parametrize("attention", ["sdpa", "sliced"])
def test_attention_is_computed_otherwise_to_the_same_end(folder: Path, attention: str) -> None:
    usual, other = loaded(folder), loaded(folder, attention=attention)
    torch.testing.assert_close(predicted(other), predicted(usual), rtol=1e-4, atol=1e-4)
    kinds = {type(each).__name__ for each in other.unet.attn_processors.values()}
    assert kinds == {{"sdpa": "AttnProcessor2_0", "sliced": "SlicedAttnProcessor"}[attention]}


def test_what_a_card_says_of_attention_comes_first(folder: Path) -> None:
    parts = load_parts(zoo.card(V1, folder, attention="sliced"), "cpu", attention="sdpa")
    kinds = {type(each).__name__ for each in parts.unet.attn_processors.values()}
    assert kinds == {"SlicedAttnProcessor"}


def test_xformers_without_a_gpu_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="xformers' needs a GPU, not cpu"):
        loaded(folder, attention="xformers")


def test_an_autoencoder_works_in_slices_and_tiles_where_asked(folder: Path) -> None:
    parts = loaded(folder, vae_slicing=True, vae_tiling=True)
    assert parts.vae.use_slicing
    assert parts.always_tiled
    assert not loaded(folder).vae.use_slicing


def test_a_visitor_leaves_nothing_on_the_device(folder: Path) -> None:
    """Lent to the CPU it is a copy too, so the moves show without a GPU."""
    encoder = loaded(folder).readers[0].encoder
    home = {name: tensor.data_ptr() for name, tensor in encoder.named_parameters()}
    ids, norm, seen = torch.arange(77)[None], encoder.final_layer_norm, []
    norm.register_forward_hook(lambda *_: seen.append(norm.weight.data_ptr()))
    with on_device():
        alone = encoder(ids).last_hidden_state
        let_visit(encoder, torch.device("cpu"))
        visiting = encoder(input_ids=ids).last_hidden_state
    assert torch.equal(visiting, alone)
    assert seen[0] == home["final_layer_norm.weight"] != seen[1]
    assert {name: tensor.data_ptr() for name, tensor in encoder.named_parameters()} == home


def test_a_visitor_goes_home_after_an_error_too(folder: Path) -> None:
    encoder = loaded(folder).readers[0].encoder
    home = {name: tensor.data_ptr() for name, tensor in encoder.named_parameters()}
    let_visit(encoder, torch.device("cpu"))
    with pytest.raises(IndexError), on_device():
        encoder(torch.full((1, 77), 10**6))
    assert {name: tensor.data_ptr() for name, tensor in encoder.named_parameters()} == home
    with on_device():
        assert encoder(torch.arange(77)[None]).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("clip_skip", [0, 1])
def test_layers_can_be_left_out_of_a_visitor(folder: Path, clip_skip: int) -> None:
    """What it made stays on the device when it has gone home: here, on one without memory."""
    reader = loaded(folder).readers[0]
    visit = reader.encoder.forward
    there = partial(torch.Tensor.to, device="meta")
    reader.encoder.forward = lambda *args, **kwargs: tree_map(there, visit(*args, **kwargs))
    prompts = PromptEncoder(reader.tokenizer, reader.encoder)
    assert prompts.encode("a cat", clip_skip=clip_skip).embedding.device.type == "meta"


@pytest.mark.gpu
def test_offloaded_encoders_draw_the_same_and_wait_on_the_cpu(made: Callable[[str], Path]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    card = zoo.card("sdxl-base", made("sdxl-base"))
    stage = native_stage(card, num_inference_steps=2)
    usual, offloaded = (load(card, "cuda", offload=how) for how in ("none", "encoders"))
    left, right = (each.prepare(stage, 0, native_inputs(stage)) for each in (usual, offloaded))
    assert torch.equal(left.conditioning.embeddings, right.conditioning.embeddings)
    parts = load_parts(card, "cuda", offload="encoders")
    assert {reader.encoder.device.type for reader in parts.readers} == {"cpu"}
    assert parts.device.type == "cuda"
    told, usually = offloaded.upkeep.memory_bytes(), usual.upkeep.memory_bytes()
    assert told["text_encoders"] == 0 < usually["text_encoders"]
    assert told["unet"] == usually["unet"]
