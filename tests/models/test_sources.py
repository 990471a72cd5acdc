"""A folder is found, and refused in words where it is not what its card says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from server.errors import CheckpointError
from server.models import sources
from server.models.sources import check, locate, variant, weights_bytes
from tests.models import tiny
from tests.models.conftest import Checkpoint


@pytest.fixture
def folder(v1: Checkpoint, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(v1.folder, tmp_path / "copy")


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def as_pickle(file: Path) -> None:
    file.rename(file.with_suffix(".bin"))


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "model_index.json is missing"),
    "no JSON": (lambda f: (f / "model_index.json").write_text("{"), "cannot be read"),
    "a list": (lambda f: (f / "model_index.json").write_text("[]"), "not a JSON object"),
    "sdxl": (
        lambda f: edit(f / "model_index.json", _class_name="StableDiffusionXLPipeline"),
        "is a StableDiffusionXLPipeline, not a StableDiffusionPipeline",
    ),
    "part not listed": (lambda f: edit(f / "model_index.json", vae=None), "its vae should be"),
    "part not there": (lambda f: shutil.rmtree(f / "tokenizer"), "its tokenizer should be"),
    "no config": (lambda f: (f / "unet/config.json").unlink(), "unet/config.json is missing"),
    "inpainting": (lambda f: edit(f / "unet/config.json", in_channels=9), "an inpainting"),
    "depth": (lambda f: edit(f / "unet/config.json", in_channels=5), "a depth-to-image"),
    "unknown": (lambda f: edit(f / "unet/config.json", in_channels=16), "of another family"),
    "lcm": (lambda f: edit(f / "unet/config.json", time_cond_proj_dim=256), "LCM's kind"),
    "v": (
        lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="v_prediction"),
        "predicts v_prediction, its card says epsilon",
    ),
    "cut short": (
        lambda f: truncate(f / "unet/diffusion_pytorch_model.safetensors"),
        "unet/diffusion_pytorch_model.safetensors is damaged",
    ),
    "no weights": (
        lambda f: (f / "text_encoder/model.safetensors").unlink(),
        "text_encoder needs safetensors weights; there are none",
    ),
    "pickles": (
        lambda f: as_pickle(f / "text_encoder/model.safetensors"),
        "only pickled ones, which are never read",
    ),
    "code": (lambda f: (f / "unet/evil.py").touch(), r"code \(evil.py\), which is never run"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_folder_that_will_not_do_is_refused_in_words(folder: Path, kind: str) -> None:
    spoil, words = SPOILED[kind]
    check(folder, tiny.card(folder))
    spoil(folder)
    with pytest.raises(CheckpointError, match=f"checkpoint 'tiny': .*{words}"):
        check(folder, tiny.card(folder))


def test_old_sampler_configs_are_corrected_as_the_pipeline_corrects_them(folder: Path) -> None:
    edit(folder / "scheduler/scheduler_config.json", steps_offset=0, clip_sample=True)
    config = check(folder, tiny.card(folder))
    assert (config["steps_offset"], config["clip_sample"]) == (1, False)


@pytest.mark.parametrize("name", ["{}.fp16", "{}.fp16-00001-of-00001", "{}-00001-of-00001.fp16"])
def test_weights_in_the_fp16_variant_alone_will_do(folder: Path, name: str) -> None:
    unet = folder / "unet"
    size = weights_bytes(unet)
    assert variant(unet) is None
    stem = "diffusion_pytorch_model"
    (unet / f"{stem}.safetensors").rename(unet / f"{name.format(stem)}.safetensors")
    assert variant(unet) == "fp16"
    assert weights_bytes(unet) == size
    check(folder, tiny.card(folder))


def test_a_folder_is_used_where_it_lies(v1: Checkpoint) -> None:
    assert locate(tiny.card(v1.folder)) == v1.folder


def test_a_shipped_checkpoint_lies_in_the_package() -> None:
    card = tiny.card(Path("package:demo"))
    assert locate(card) == Path(sources.__file__).parent / "demo"


@pytest.mark.parametrize("source", ["/no/such/folder", "package:nothing", "~/no/such/folder"])
def test_a_folder_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(CheckpointError, match=r"there is no folder .*(folder|nothing)"):
        locate(tiny.card(Path(source)))


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_hub_id_is_found_in_the_cache_without_a_network(
    v1: Checkpoint, offline_cache: Path
) -> None:
    repository = offline_cache / "models--someone--tiny-sd"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(v1.folder, repository / "snapshots" / ("0" * 40))
    found = locate(tiny.card(Path("someone/tiny-sd")))
    check(found, tiny.card(found))


def test_a_hub_id_that_is_nowhere_is_named(offline_cache: Path) -> None:
    with pytest.raises(CheckpointError, match="someone/absent is neither a folder here"):
        locate(tiny.card(Path("someone/absent")))
