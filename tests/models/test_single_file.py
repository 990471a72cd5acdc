"""An original single file becomes the same parts as its diffusers folder, or a clear error."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from server.catalog import Card
from server.errors import CheckpointError
from server.models.diffusion import LatentDiffusion
from server.models.loading import load, load_parts
from server.models.parts import Parts
from server.models.single_file import CONFIGS, KNOWN, PREFIXES, SingleFile
from server.models.vocabulary import clip_vocabulary
from server.workers.native import native_inputs, native_stage
from tests.models import zoo
from tests.models.original import original, write_original

V1 = "sd-v1"
FOLDERS_ONLY = ("sd-v1-safety", "sd-lcm")
"""They differ from another in what no single file holds."""


@pytest.fixture(scope="module")
def folders(one_core: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every architecture that is published as a single file."""
    root = tmp_path_factory.mktemp("zoo")
    names = [name for name in zoo.ZOO if name not in FOLDERS_ONLY]
    return {name: zoo.build(name, root / name) for name in names}


def single_card(name: str, folder: Path, file: Path, **changes: Any) -> Any:
    return zoo.card(name, folder, source=str(file), config=str(folder), **changes)


def weights(parts: Parts) -> dict[str, torch.Tensor]:
    models = {"unet": parts.unet, "vae": parts.vae}
    models |= {f"reader {i}": reader.encoder for i, reader in enumerate(parts.readers)}
    return {
        f"{part}.{name}": tensor
        for part, model in models.items()
        for name, tensor in model.state_dict().items()
    }


def assert_same(left: Parts, right: Parts) -> None:
    lefts, rights = weights(left), weights(right)
    assert set(lefts) == set(rights)
    different = [name for name in lefts if not torch.equal(lefts[name], rights[name])]
    assert different == []
    assert left.sampler_config == right.sampler_config
    assert left.low_res_sampler_config == right.low_res_sampler_config


@pytest.mark.parametrize("name", [name for name in zoo.ZOO if name not in FOLDERS_ONLY])
def test_a_single_file_is_the_same_as_its_folder(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    folder = folders[name]
    file = write_original(folder, tmp_path / "whole.safetensors")
    single = load_parts(single_card(name, folder, file), "cpu")
    whole = load_parts(zoo.card(name, folder), "cpu")
    assert_same(single, whole)
    text = "a b"
    for left, right in zip(single.readers, whole.readers, strict=True):
        assert left.tokenizer(text).input_ids == right.tokenizer(text).input_ids


@pytest.mark.parametrize("name", [V1, "sd-v2", "sdxl-base"])
def test_a_single_file_draws_the_same_latents_as_its_folder(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    folder = folders[name]
    file = write_original(folder, tmp_path / "whole.safetensors")
    cards = single_card(name, folder, file), zoo.card(name, folder)
    left, right = (drawn(load(card, "cpu"), card) for card in cards)
    assert torch.equal(left, right)


def drawn(denoiser: LatentDiffusion, card: Card) -> torch.Tensor:
    """Final latents of the card's first task."""
    stage = native_stage(card, num_inference_steps=3, prompt="a b")
    state = denoiser.prepare(stage, 0, native_inputs(stage))
    while state.steps_done < state.steps_total:
        [prediction] = denoiser.predict([state])
        denoiser.advance(state, prediction)
    return state.latents


def test_a_file_in_half_precision_becomes_what_the_device_wants(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    halves = {name: tensor.half() for name, tensor in original(folders[V1]).items()}
    save_file(halves, tmp_path / "half.safetensors")
    parts = load_parts(single_card(V1, folders[V1], tmp_path / "half.safetensors"), "cpu")
    assert {tensor.dtype for tensor in parts.unet.parameters()} == {torch.float32}


def test_each_part_of_a_file_is_announced(folders: dict[str, Path], tmp_path: Path) -> None:
    file = write_original(folders[V1], tmp_path / "whole.safetensors")
    told: list[tuple[str, int, int]] = []
    load_parts(single_card(V1, folders[V1], file), "cpu", progress=lambda *new: told.append(new))
    assert [part for part, _, _ in told] == ["text_encoder", "unet", "vae", "tokenizer"]
    assert told[0][1] == 0
    assert {total for _, _, total in told} == {told[-1][1]}


def test_a_ckpt_is_read_where_the_operator_allows_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    file = write_original(folders[V1], tmp_path / "whole.ckpt")
    card = single_card(V1, folders[V1], file)
    assert_same(
        load_parts(card, "cpu", allow_pickle=True), load_parts(zoo.card(V1, folders[V1]), "cpu")
    )


def test_a_ckpt_is_refused_where_he_does_not(folders: dict[str, Path], tmp_path: Path) -> None:
    file = write_original(folders[V1], tmp_path / "whole.ckpt")
    with pytest.raises(CheckpointError, match=r"'sd-v1': whole.ckpt is a pickle.*ALLOW_PICKLE"):
        load_parts(single_card(V1, folders[V1], file), "cpu")


class Evil:
    """What a malicious checkpoint holds."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not(
    folders: dict[str, Path], tmp_path: Path, zipped: bool
) -> None:
    file, mark = tmp_path / "evil.ckpt", tmp_path / "it ran"
    evil = original(folders[V1]) | {"evil": Evil(mark)}
    if zipped:
        torch.save(evil, file)
    else:
        file.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    with pytest.raises(CheckpointError, match=r"evil\.ckpt calls posix.mkdir.*refused"):
        load_parts(single_card(V1, folders[V1], file), "cpu", allow_pickle=True)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nobody_is_advised_to_let_a_pickle_run(tmp_path: Path, protocol: int) -> None:
    spoiled = [bytes(1000), bytes(1), pickle.dumps(Evil(tmp_path / "it ran"), protocol)]
    for data in spoiled:
        (tmp_path / "odd.ckpt").write_bytes(data)
        with pytest.raises(CheckpointError, match="Darkroom reads tensors only") as refused:
            load_parts(zoo.card(V1, tmp_path / "odd.ckpt"), "cpu", allow_pickle=True)
        assert "weights_only" not in refused.value.message


NO_ARRAYS = {
    "a list": {"state_dict": [torch.zeros(1)]},
    "a name that is none": {7: torch.zeros(1)},
    "sparse": {"a": torch.eye(3).to_sparse()},
    "without numbers": {"a": torch.zeros(3, device="meta")},
    "larger than its file": {"a": torch.zeros(1).expand(10**9, 10**3)},
    "complex": {"a": torch.zeros(3, dtype=torch.complex64)},
    "too many": {str(number): torch.zeros(()) for number in range(10_001)},
}


@pytest.mark.parametrize("kind", NO_ARRAYS)
def test_tensors_that_no_model_has_are_refused(tmp_path: Path, kind: str) -> None:
    torch.save(NO_ARRAYS[kind], tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=r"odd.ckpt holds (no tensors|what no|10001)"):
        load_parts(zoo.card(V1, tmp_path / "odd.ckpt"), "cpu", allow_pickle=True)


def test_what_the_trainer_left_beside_the_weights_does_no_harm(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Stable Diffusion v1's own files name a class of the trainer, which nobody needs here."""
    name = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    file = tmp_path / "v1.ckpt"
    torch.save({"state_dict": original(folders[V1]), "callbacks": {"here": {}}}, file)
    with_class = _with_global(file, b"X\x04\x00\x00\x00here", name)
    card = single_card(V1, folders[V1], with_class)
    assert load_parts(card, "cpu", allow_pickle=True).parameters > 0


def _with_global(file: Path, before: bytes, after: bytes) -> Path:
    changed = file.with_name("changed.ckpt")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert before in data
                data = data.replace(before, after)
            new.writestr(entry, data)
    return changed


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_truncated_file_is_called_damaged(
    folders: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    file = write_original(folders[V1], tmp_path / f"cut{suffix}")
    file.write_bytes(file.read_bytes()[:-100_000])
    with pytest.raises(CheckpointError, match=r"cut\.\w+ is damaged"):
        load_parts(single_card(V1, folders[V1], file), "cpu", allow_pickle=True)


@pytest.mark.parametrize("data", [b"", b"abc", b"\x80\x02}q\x00.", bytes(range(256))])
def test_bytes_that_are_no_pickle_are_an_error_in_words(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "odd.ckpt"
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"odd\.ckpt (is damaged|holds no tensors)"):
        load_parts(zoo.card(V1, file), "cpu", allow_pickle=True)


MISSING = {
    "first_stage_model.": "its vae should be a AutoencoderKL and is missing",
    "cond_stage_model.": "its text_encoder should be a CLIPTextModel and is missing",
    "model.diffusion_model.out.2": "the unet lacks 2 tensors: conv_out.bias, conv_out.weight",
    "model.diffusion_model.": "its unet should be a UNet2DConditionModel and is missing",
}


@pytest.mark.parametrize("prefix", MISSING)
def test_what_a_file_lacks_is_named(folders: dict[str, Path], tmp_path: Path, prefix: str) -> None:
    tensors = original(folders[V1])
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    save_file(rest, tmp_path / "rest.safetensors")
    with pytest.raises(CheckpointError, match=MISSING[prefix]):
        load_parts(single_card(V1, folders[V1], tmp_path / "rest.safetensors"), "cpu")


def test_a_file_of_another_shape_than_its_config_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    file = write_original(folders["sd-v1-inpainting"], tmp_path / "nine.safetensors")
    with pytest.raises(CheckpointError, match=r"unet of nine.safetensors is not of .*conv_in"):
        load_parts(single_card(V1, folders[V1], file), "cpu")


NO_CHECKPOINT = {
    "lora_unet_down_blocks_0.lora_down.weight": "is a LoRA",
    "down_blocks.0.resnets.0.conv1.weight": "is a single part of a diffusers folder",
    "double_blocks.0.img_attn.qkv.weight": "is of another family: Flux",
    "something": "is not an original Stable Diffusion checkpoint",
}


@pytest.mark.parametrize("key", NO_CHECKPOINT)
def test_a_file_that_is_something_else_is_called_that(tmp_path: Path, key: str) -> None:
    file = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=f"other.safetensors {NO_CHECKPOINT[key]}"):
        load_parts(zoo.card(V1, file), "cpu")


def outline(width: int, channels: int) -> dict[str, torch.Tensor]:
    """The two tensors that show which architecture a file is of."""
    unet = "model.diffusion_model.input_blocks"
    return {
        f"{unet}.0.0.weight": torch.zeros(8, channels, 1, 1),
        f"{unet}.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, width),
    }


@pytest.mark.parametrize("shapes", [((1,), (1,)), ((8, 4, 1, 1), (1,)), ((), (8, 768))])
def test_tensors_of_shapes_that_no_unet_has_are_refused(
    tmp_path: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    file = tmp_path / "odd.safetensors"
    save_file(dict(zip(outline(768, 4), map(torch.zeros, shapes), strict=True)), file)
    with pytest.raises(CheckpointError, match=r"odd.safetensors is damaged: .*no UNet has"):
        load_parts(zoo.card(V1, file), "cpu")


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten()[:1].clone()


@pytest.mark.parametrize("spoil", [_flat, torch.Tensor.int], ids=["shape", "numbers"])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("name", [V1, "sd-v2"])
def test_a_part_with_other_tensors_than_its_own_is_named(
    folders: dict[str, Path], tmp_path: Path, name: str, part: str, spoil: Any
) -> None:
    begins = PREFIXES[part]
    tensors = {
        name: spoil(tensor) if name.startswith(begins) else tensor
        for name, tensor in original(folders[name]).items()
    }
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=f"the {part} of odd.safetensors is not of the arch"):
        load_parts(single_card(name, folders[name], tmp_path / "odd.safetensors"), "cpu")


@pytest.mark.parametrize("shape", KNOWN)
def test_the_architecture_shows_in_the_shapes(tmp_path: Path, shape: tuple[int, int]) -> None:
    file = tmp_path / "outline.safetensors"
    save_file(outline(*shape), file)
    assert SingleFile(file, zoo.card(V1, file)).configs == CONFIGS / KNOWN[shape]


def test_v2_predicts_what_its_card_says(tmp_path: Path) -> None:
    file = tmp_path / "outline.safetensors"
    save_file(outline(1024, 4), file)
    v = SingleFile(file, zoo.card("sd-v2", file))
    assert v.configs.name == "sd-v2"


def test_an_unknown_architecture_is_told_what_would_help(tmp_path: Path) -> None:
    file = tmp_path / "outline.safetensors"
    save_file(outline(640, 4), file)
    with pytest.raises(CheckpointError, match="4 channels and embeddings of 640; name a folder"):
        SingleFile(file, zoo.card(V1, file))


def test_a_file_that_says_it_predicts_v_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "v.safetensors"
    save_file(outline(2048, 4) | {"v_pred": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="predicts v, its card says epsilon"):
        SingleFile(file, zoo.card("sdxl-base", file))


def test_another_family_than_the_card_says_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "xl.safetensors"
    save_file(outline(2048, 4), file)
    with pytest.raises(CheckpointError, match="StableDiffusionXLPipeline, of family sdxl"):
        load_parts(zoo.card(V1, file), "cpu")


@pytest.mark.parametrize(("architecture", "padding"), [("sd-v1", 49407), ("sd-v2", 0)])
def test_the_shipped_vocabulary_is_clips(architecture: str, padding: int, tmp_path: Path) -> None:
    file = tmp_path / "outline.safetensors"
    save_file(outline(768, 4), file)
    source = SingleFile(file, zoo.card(V1, file))
    source.configs = CONFIGS / architecture
    tokenizer = source.tokenizer("tokenizer")
    ids = tokenizer("A photo of an astronaut riding a horse").input_ids
    assert ids == [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 49407]
    assert tokenizer.pad_token_id == padding
    assert (len(tokenizer), tokenizer.model_max_length) == (49408, 77)


def test_the_vocabulary_round_trips_through_its_files(tmp_path: Path) -> None:
    """As the vocab.json and merges.txt of the hub would be read."""
    vocabulary, merges = clip_vocabulary()
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n")
    ids = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)("naïve café 42!").input_ids
    own = CLIPTokenizer(vocab=vocabulary, merges=merges)("naïve café 42!").input_ids
    assert ids == own
