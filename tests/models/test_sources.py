"""A folder or file is found, and refused in words where it is not what its card says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from server.catalog import Card
from server.errors import CheckpointError
from server.models import sources
from server.models.anatomy import Anatomy, examine
from server.models.folder import Folder
from server.models.sources import locate
from server.spec import Task
from tests.models import zoo

V1 = "sd-v1"
UNET = "unet/diffusion_pytorch_model.safetensors"


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


def check(folder: Path, card: Card) -> Anatomy:
    return examine(Folder(folder), card)


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
    "deep": (lambda f: (f / "model_index.json").write_text("[" * 100_000), "cannot be read"),
    "a part that is a number": (
        lambda f: edit(f / "model_index.json", unet=5),
        "its configs are not as diffusers writes them",
    ),
    "channels that are a list": (
        lambda f: edit(f / "unet/config.json", in_channels=[4]),
        "its configs are not as diffusers writes them",
    ),
    "a width in words": (
        lambda f: edit(f / "text_encoder/config.json", hidden_size="wide"),
        "its configs are not as diffusers writes them",
    ),
    "sdxl": (
        lambda f: edit(f / "model_index.json", _class_name="StableDiffusionXLPipeline"),
        "is a StableDiffusionXLPipeline, of family sdxl; its card says sd",
    ),
    "another family": (
        lambda f: edit(f / "model_index.json", _class_name="FluxPipeline"),
        "is a FluxPipeline, which none of the families sd and sdxl can draw",
    ),
    "part not listed": (
        lambda f: edit(f / "model_index.json", vae=None),
        "its vae should be a AutoencoderKL and is missing",
    ),
    "part of another class": (
        lambda f: edit(f / "model_index.json", vae=["diffusers", "AutoencoderTiny"]),
        "its vae should be a AutoencoderKL and is AutoencoderTiny",
    ),
    "part not there": (
        lambda f: shutil.rmtree(f / "tokenizer"),
        "its tokenizer should be a CLIPTokenizer and is missing",
    ),
    "no config": (lambda f: (f / "unet/config.json").unlink(), "unet/config.json is missing"),
    "editing": (
        lambda f: edit(f / "unet/config.json", in_channels=8),
        "takes 8 channels: it is an instruction-editing checkpoint, which sd cannot draw",
    ),
    "unknown": (lambda f: edit(f / "unet/config.json", in_channels=16), "of another family"),
    "lcm upscaler": (
        lambda f: edit(f / "unet/config.json", in_channels=7, time_cond_proj_dim=256),
        "its UNet reads the guidance scale, and it is an upscaler",
    ),
    "widths": (
        lambda f: edit(f / "unet/config.json", cross_attention_dim=64),
        "its UNet reads embeddings 64 wide, text_encoder make 32",
    ),
    "v": (
        lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="v_prediction"),
        "predicts v_prediction, its card says epsilon",
    ),
    "cut short": (lambda f: truncate(f / UNET), f"{UNET} is damaged"),
    "no weights": (
        lambda f: (f / "text_encoder/model.safetensors").unlink(),
        "text_encoder needs safetensors weights; there are none",
    ),
    "pickles": (
        lambda f: as_pickle(f / "text_encoder/model.safetensors"),
        "only pickled ones, which are never read",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_folder_that_will_not_do_is_refused_in_words(folder: Path, kind: str) -> None:
    spoil, words = SPOILED[kind]
    card = zoo.card(V1, folder)
    check(folder, card)
    spoil(folder)
    with pytest.raises(CheckpointError, match=words):
        check(folder, card)


def test_code_in_a_folder_is_never_run(folder: Path) -> None:
    (folder / "unet/evil.py").touch()
    with pytest.raises(CheckpointError, match=r"code \(evil.py\), which is never run"):
        Folder(folder)


MISMATCHED: list[tuple[str, list[Task], str]] = [
    (V1, [Task.UPSCALE], "an ordinary checkpoint and draws text-to-image, .*says upscale"),
    ("sd-v1-inpainting", [Task.TEXT_TO_IMAGE], "9 channels: it is an inpainting checkpoint"),
    ("sd-v2-depth", [Task.IMAGE_TO_IMAGE], "5 channels: it is a depth-to-image checkpoint"),
    ("sd-x4-upscaler", [Task.TEXT_TO_IMAGE], "7 channels: it is an upscaler and draws upscale"),
    ("sdxl-inpainting", [Task.TEXT_TO_IMAGE], "draws inpainting; its card says text-to-image"),
    ("sdxl-refiner", [Task.TEXT_TO_IMAGE], "a refiner and draws image-to-image"),
]


@pytest.mark.parametrize(("name", "tasks", "words"), MISMATCHED)
def test_a_card_may_promise_only_what_its_unet_draws(
    made: Callable[[str], Path], name: str, tasks: list[Task], words: str
) -> None:
    folder = made(name)
    check(folder, zoo.card(name, folder))
    with pytest.raises(CheckpointError, match=words):
        check(folder, zoo.card(name, folder, tasks=tasks))


def test_an_sdxl_base_without_its_first_text_encoder_is_told_what_it_reads(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made("sdxl-base"), tmp_path / "copy"))
    edit(folder / "model_index.json", text_encoder=[None, None])
    card = zoo.card("sdxl-base", folder, tasks=[Task.IMAGE_TO_IMAGE])
    with pytest.raises(CheckpointError, match="reads embeddings 80 wide, text_encoder_2 make 48"):
        check(folder, card)


def test_an_upscaler_needs_the_schedule_of_its_input(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made("sd-x4-upscaler"), tmp_path / "copy"))
    edit(folder / "model_index.json", low_res_scheduler=None)
    with pytest.raises(CheckpointError, match="its low_res_scheduler"):
        check(folder, zoo.card("sd-x4-upscaler", folder))


def test_a_card_that_wants_pictures_checked_needs_a_checker(
    made: Callable[[str], Path], folder: Path
) -> None:
    with pytest.raises(CheckpointError, match="safety = 'blur', but it has no safety_checker"):
        check(folder, zoo.card(V1, folder, safety="blur"))
    own = made("sd-v1-safety")
    assert check(own, zoo.card("sd-v1-safety", own)).safety
    assert not check(own, zoo.card("sd-v1-safety", own, safety="off")).safety


def test_a_depth_estimator_may_be_missing(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made("sd-v2-depth"), tmp_path / "copy"))
    assert check(folder, zoo.card("sd-v2-depth", folder)).depth
    shutil.rmtree(folder / "depth_estimator")
    assert not check(folder, zoo.card("sd-v2-depth", folder)).depth


def test_old_sampler_configs_are_corrected_as_the_pipeline_corrects_them(folder: Path) -> None:
    edit(folder / "scheduler/scheduler_config.json", steps_offset=0, clip_sample=True)
    config = check(folder, zoo.card(V1, folder)).sampler_config
    assert (config["steps_offset"], config["clip_sample"]) == (1, False)


def test_a_card_may_say_that_the_last_timestep_is_pure_noise(folder: Path) -> None:
    config = check(folder, zoo.card(V1, folder, zero_terminal_snr=True)).sampler_config
    assert config["rescale_betas_zero_snr"] is True
    assert config["timestep_spacing"] == "trailing"


def test_a_cards_own_sampler_config_has_the_last_word(folder: Path) -> None:
    own: dict[str, Any] = {"timestep_spacing": "linspace", "steps_offset": 0}
    config = check(folder, zoo.card(V1, folder, sampler_config=own)).sampler_config
    assert own.items() <= config.items()
    assert config["beta_schedule"] == "scaled_linear"


@pytest.mark.parametrize("name", ["{}.fp16", "{}.fp16-00001-of-00001", "{}-00001-of-00001.fp16"])
def test_weights_in_the_fp16_variant_alone_will_do(folder: Path, name: str) -> None:
    source, stem = Folder(folder), "diffusion_pytorch_model"
    size = source.weights_bytes("unet")
    assert source.variant("unet") is None
    (folder / UNET).rename(folder / "unet" / f"{name.format(stem)}.safetensors")
    assert source.variant("unet") == "fp16"
    assert source.weights_bytes("unet") == size
    check(folder, zoo.card(V1, folder))


def test_a_folder_is_used_where_it_lies(folder: Path) -> None:
    assert locate(zoo.card(V1, folder)) == folder


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_so_is_a_single_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert locate(zoo.card(V1, tmp_path / name)) == tmp_path / name


def test_a_shipped_checkpoint_lies_in_the_package() -> None:
    card = zoo.card(V1, Path("package:demo"))
    assert locate(card) == Path(sources.__file__).parent / "demo"


@pytest.mark.parametrize("source", ["/no/such/folder", "package:nothing", "~/no/such/folder"])
def test_a_folder_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(CheckpointError, match=r"there is no folder .*(folder|nothing)"):
        locate(zoo.card(V1, Path(source)))


def test_a_file_that_is_not_there_is_named_not_looked_for_on_the_hub() -> None:
    with pytest.raises(CheckpointError, match=r"there is no file models/mine\.safetensors"):
        locate(zoo.card(V1, Path("models/mine.safetensors")))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(CheckpointError, match=r"model.gguf is neither .ckpt nor .safetensors"):
        locate(zoo.card(V1, tmp_path / "model.gguf"))


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("revision", ["main", "v1.0"])
def test_a_hub_id_is_found_in_the_cache_without_a_network(
    folder: Path, offline_cache: Path, revision: str
) -> None:
    repository = offline_cache / "models--someone--tiny-sd"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    card = zoo.card(V1, Path("someone/tiny-sd"), revision=revision)
    check(locate(card), card)


def test_a_hub_id_that_is_nowhere_is_named(offline_cache: Path) -> None:
    with pytest.raises(CheckpointError, match="someone/absent is neither a folder here"):
        locate(zoo.card(V1, Path("someone/absent")))
