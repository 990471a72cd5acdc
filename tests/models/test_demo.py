"""The demo checkpoint loads by plain diffusers and draws what it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from safetensors import safe_open  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from demo.evaluate import CHECKPOINT, judge, load, paint  # noqa: E402

SIZE_LIMIT = 16_000_000
# Prompt and the shape, colour and background to be seen; the last three combinations are held out.
PROMPTS = [
    ("a red circle on a blue background", ("circle", "red", "blue")),
    ("a large green star on a white background", ("star", "green", "white")),
    ("yellow square, black background", ("square", "yellow", "black")),
    ("a picture of a yellow heart on a blue background", ("heart", "yellow", "blue")),
    ("a white background with a red triangle", ("triangle", "red", "white")),
    ("large black ring on white", ("ring", "black", "white")),
]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run on one core, as small models are fastest there and tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pipeline(one_thread: None) -> diffusers.StableDiffusionPipeline:
    return load(CHECKPOINT)


def files() -> list[Path]:
    return [path for path in CHECKPOINT.rglob("*") if path.is_file()]


def test_folder_is_small_and_holds_no_pickles() -> None:
    assert sum(path.stat().st_size for path in files()) <= SIZE_LIMIT
    assert {path.suffix for path in files()} <= {".json", ".txt", ".md", ".safetensors"}


def test_all_weights_are_half_precision() -> None:
    weights = [path for path in files() if path.suffix == ".safetensors"]
    assert {path.parent.name for path in weights} == {"unet", "vae", "text_encoder"}
    for path in weights:
        with safe_open(path, "pt") as tensors:
            kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        assert kinds == {"F16"}, path


def test_layout_is_that_of_stable_diffusion(pipeline: diffusers.StableDiffusionPipeline) -> None:
    assert pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels == 4
    assert pipeline.vae_scale_factor == 8
    assert pipeline.unet.config.sample_size == 16
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.tokenizer.model_max_length == 77
    assert pipeline.safety_checker is None


def test_both_tokenizers_agree_and_keep_words_whole(
    pipeline: diffusers.StableDiffusionPipeline,
) -> None:
    plain = Tokenizer.from_file(str(CHECKPOINT / "tokenizer" / "tokenizer.json"))
    text = "A large red circle in the top left, blue background"
    ids = pipeline.tokenizer(text).input_ids
    assert plain.encode(text).ids == ids
    assert len(ids) == 2 + 11
    assert plain.encode("zebra 3.5 été 猫").ids  # unknown words are spelled out


@pytest.mark.parametrize(("prompt", "shown"), PROMPTS, ids=[prompt for prompt, _ in PROMPTS])
def test_draws_what_is_asked(
    pipeline: diffusers.StableDiffusionPipeline, prompt: str, shown: tuple[str, str, str]
) -> None:
    (picture,) = paint(pipeline, [prompt])
    verdict = judge(picture)
    assert (verdict.shape, verdict.colour, verdict.background) == shown
