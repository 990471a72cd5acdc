"""Previews show what diffusers' own schedulers expect, and change nothing of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, EulerDiscreteScheduler
from diffusers.image_processor import VaeImageProcessor
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from demo.evaluate import judge
from server.catalog import load_catalog
from server.errors import CheckpointError
from server.models.diffusion import LatentDiffusion
from server.models.glimpses import clean, expected, signal
from server.models.loading import load
from server.models.state import Glimpse, State
from server.pixels import Inputs
from server.spec import AnySpec, Sampler
from server.stages import Handover, Stage
from tests import builders
from tests.models import tiny, zoo
from tests.models.conftest import Checkpoint
from tests.models.drawing import NOTHING, a_mask, a_picture, apart, decoded, draw, prepare, step

SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 5}
a_spec = partial(builders.a_spec, **SMALL)
an_inpainting = partial(builders.an_inpainting, **SMALL)
an_upscale = partial(builders.an_upscale, **SMALL | {"width": 128, "height": 128})

Replica = Callable[[str], Checkpoint]


def glimpses(
    denoiser: LatentDiffusion, drawn: AnySpec | Stage, inputs: Inputs = NOTHING
) -> Iterator[tuple[State, NDArray[np.uint8]]]:
    """Draws to the end: the state, and what it shows each time that it is shown."""
    state, shown = prepare(denoiser, drawn, inputs=inputs), 0
    while state.steps_done < state.steps_total:
        step(denoiser, [state])
        if state.previews_due > shown:
            shown = state.previews_due
            yield state, np.asarray(denoiser.preview([state])[0].array(), np.uint8)


@pytest.mark.parametrize(
    ("kind", "predicts"),
    [
        (DDIMScheduler, "epsilon"),
        (DDIMScheduler, "v_prediction"),
        (DDIMScheduler, "sample"),
        (EulerDiscreteScheduler, "epsilon"),
        (EulerDiscreteScheduler, "v_prediction"),
    ],
)
def test_what_is_shown_is_what_diffusers_expects(kind: Any, predicts: str) -> None:
    config = DDIMScheduler(prediction_type=predicts, clip_sample=False, **tiny.NOISE).config
    sampler = kind.from_config(config)
    sampler.set_timesteps(8)
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 4, 8, 8, generator=generator) * sampler.init_noise_sigma
    for timestep in sampler.timesteps:
        prediction = torch.randn(1, 4, 8, 8, generator=generator)
        scaled = sampler.scale_model_input(sample, timestep)
        ours = clean(Glimpse(scaled, prediction, signal(sampler, float(timestep))), predicts)
        theirs = sampler.step(prediction, timestep, sample)
        assert apart(ours, theirs.pred_original_sample) < 1e-4
        sample = theirs.prev_sample


def test_between_two_trained_timesteps_it_is_what_diffusers_expects_but_for_a_hair() -> None:
    config = DDIMScheduler(clip_sample=False, **tiny.NOISE).config
    sampler = EulerDiscreteScheduler.from_config(config, use_karras_sigmas=True)
    sampler.set_timesteps(8)
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 4, 8, 8, generator=generator) * sampler.init_noise_sigma
    for timestep in sampler.timesteps[:-1]:
        prediction = torch.randn(1, 4, 8, 8, generator=generator)
        scaled = sampler.scale_model_input(sample, timestep)
        ours = clean(Glimpse(scaled, prediction, signal(sampler, float(timestep))), "epsilon")
        theirs = sampler.step(prediction, timestep, sample)
        assert apart(ours, theirs.pred_original_sample) < 1e-3
        sample = theirs.prev_sample


@pytest.mark.parametrize("sampler", Sampler)
def test_a_picture_is_the_same_whether_it_was_watched_or_not(
    v1: Checkpoint, sampler: Sampler
) -> None:
    spec = a_spec(sampler=sampler, eta=0.5)
    alone = draw(v1.denoiser, spec)
    *_, (watched, _) = glimpses(v1.denoiser, a_spec(sampler=sampler, eta=0.5, previews=4))
    assert watched.previews_due == 4
    assert torch.equal(watched.latents, alone.latents)
    assert np.array_equal(decoded(v1.denoiser, watched), decoded(v1.denoiser, alone))


@pytest.mark.parametrize("checkpoint", ["v1", "v2"])
def test_a_preview_is_the_same_alone_and_among_others(
    request: pytest.FixtureRequest, checkpoint: str
) -> None:
    denoiser = request.getfixturevalue(checkpoint).denoiser
    states = [prepare(denoiser, a_spec(seed=seed, previews=1)) for seed in (1, 2, 3)]
    for _ in range(2):
        step(denoiser, states)
    together = [picture.array().astype(int) for picture in denoiser.preview(states)]
    for state, ours in zip(states, together, strict=True):
        alone = denoiser.preview([state])[0].array().astype(int)
        assert np.abs(alone - ours).max() <= 1


def test_nothing_is_kept_for_previews_where_none_are_asked_for(v1: Checkpoint) -> None:
    state = prepare(v1.denoiser, a_spec())
    while state.steps_done < state.steps_total:
        step(v1.denoiser, [state])
        assert (state.glimpse, state.previews_due) == (None, 0)


def test_a_stage_that_gives_latents_shows_pictures(v1: Checkpoint) -> None:
    stage = Stage(spec=a_spec(previews=2), gives=Handover.LATENTS)
    shown = [picture for _, picture in glimpses(v1.denoiser, stage)]
    assert [picture.shape for picture in shown] == [(64, 64, 3)] * 2


def test_an_upscaler_shows_its_pictures_at_their_size(replica: Replica) -> None:
    inputs = Inputs(image=a_picture(32, 32))
    denoiser = replica("sd-x4-upscaler").denoiser
    shown = [picture for _, picture in glimpses(denoiser, an_upscale(previews=1), inputs)]
    assert [picture.shape for picture in shown] == [(128, 128, 3)]


@pytest.mark.parametrize("name", ["sd-v1", "sd-v1-inpainting"])
@pytest.mark.parametrize("crop", [None, 4])
def test_what_is_outside_the_mask_is_shown_as_it_was_sent(
    replica: Replica, name: str, crop: int | None
) -> None:
    spec = an_inpainting(previews=2, keep_outside=True, padding_mask_crop=crop)
    inputs = Inputs(image=a_picture(), mask=a_mask())
    for _, picture in glimpses(replica(name).denoiser, spec, inputs):
        outside = a_mask() == 0
        assert np.array_equal(picture[outside], a_picture()[outside])
        assert not np.array_equal(picture, a_picture())


def test_what_a_v1_inpainting_keeps_is_shown_before_it_is_pasted(replica: Replica) -> None:
    spec = an_inpainting(previews=1, keep_outside=False)
    inputs = Inputs(image=a_picture(), mask=np.zeros((64, 64), np.uint8))
    denoiser = replica("sd-v1").denoiser
    [(state, shown)] = glimpses(denoiser, spec, inputs)
    assert np.abs(shown.astype(int) - decoded(denoiser, state)).max() <= 1


@pytest.fixture(scope="module")
def demo(one_core: None) -> LatentDiffusion:
    return load(load_catalog()["demo"], "cpu")


@pytest.mark.parametrize("sampler", Sampler)
def test_a_preview_shows_what_the_prompt_says_before_the_picture_is_done(
    demo: LatentDiffusion, sampler: Sampler
) -> None:
    spec = builders.a_spec(sampler=sampler, num_inference_steps=12, previews=4, seed=3)
    *_, (_, shown) = glimpses(demo, spec)
    seen = judge(shown.astype(np.float32))
    assert (seen.shape, seen.colour, seen.background) == ("circle", "red", "blue")


def a_tiny_vae(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "encoder_block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8, 8),
        "num_encoder_blocks": (1, 1, 1, 1),
        "num_decoder_blocks": (1, 1, 1, 1),
    }
    AutoencoderTiny(**fields | changes).save_pretrained(folder)
    return folder


def test_a_cards_preview_vae_decodes_previews_and_nothing_else(
    v1: Checkpoint, tmp_path: Path
) -> None:
    a_tiny_vae(tmp_path / "VAE" / "taesd")
    card = tiny.card(v1.folder, preview_vae="taesd")
    denoiser = load(card, "cpu", models_dir=tmp_path)
    *_, (watched, shown) = glimpses(denoiser, a_spec(previews=2))
    *_, (plain, before) = glimpses(v1.denoiser, a_spec(previews=2))
    assert shown.shape == before.shape
    assert not np.array_equal(shown, before)
    assert torch.equal(watched.latents, plain.latents)
    assert np.array_equal(decoded(denoiser, watched), decoded(v1.denoiser, plain))


def test_what_it_shows_is_what_diffusers_makes_of_the_expected_latents(
    v1: Checkpoint, tmp_path: Path
) -> None:
    folder = a_tiny_vae(tmp_path / "taesd")
    denoiser = load(tiny.card(v1.folder, preview_vae=str(folder)), "cpu")
    state, shown = next(glimpses(denoiser, a_spec(previews=1)))
    model: Any = AutoencoderTiny.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        made = model.decode(expected(state)).sample
    theirs = VaeImageProcessor().postprocess(made, output_type="pil")[0]
    assert np.abs(shown.astype(int) - np.asarray(theirs).astype(int)).max() <= 1


def test_an_upscaler_takes_a_preview_vae_of_its_own_factor(
    replica: Replica, tmp_path: Path
) -> None:
    made = replica("sd-x4-upscaler")
    three: dict[str, Any] = {
        "encoder_block_out_channels": (8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8),
        "num_encoder_blocks": (1, 1, 1),
        "num_decoder_blocks": (1, 1, 1),
    }
    folder = a_tiny_vae(tmp_path / "three", **three)
    denoiser = load(zoo.card("sd-x4-upscaler", made.folder, preview_vae=str(folder)), "cpu")
    inputs = Inputs(image=a_picture(32, 32))
    [(_, shown)] = glimpses(denoiser, an_upscale(previews=1), inputs)
    assert shown.shape == (128, 128, 3)


UNFIT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "of another factor": (
        lambda at: a_tiny_vae(
            at / "vae",
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ),
        "it has 2 pixels per latent, and the checkpoint has 8",
    ),
    "of other latents": (
        lambda at: a_tiny_vae(at / "vae", latent_channels=16),
        "it has 16 channels, and the checkpoint has 4",
    ),
    "a file": (lambda at: _file(at / "taesd.safetensors"), "is no diffusers folder"),
    "not there": (lambda at: at / "nowhere", "no autoencoder .*nowhere"),
}


def _file(path: Path) -> Path:
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", UNFIT)
def test_a_preview_vae_that_does_not_fit_is_refused_when_the_worker_starts(
    v1: Checkpoint, tmp_path: Path, kind: str
) -> None:
    make, words = UNFIT[kind]
    card = tiny.card(v1.folder, preview_vae=str(make(tmp_path)))
    with pytest.raises(CheckpointError, match=f"'tiny': its preview_vae: .*{words}"):
        load(card, "cpu", models_dir=tmp_path)


def test_neither_is_an_ordinary_autoencoder_taken_for_one(v1: Checkpoint) -> None:
    card = tiny.card(v1.folder, preview_vae=str(v1.folder / "vae"))
    with pytest.raises(CheckpointError, match="of class AutoencoderKL, and should be an"):
        load(card, "cpu")


def test_one_that_is_cut_short_is_refused(v1: Checkpoint, tmp_path: Path) -> None:
    folder = a_tiny_vae(tmp_path / "taesd")
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if name.startswith("decoder")))
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="taesd is not whole: it lacks decoder"):
        load(tiny.card(v1.folder, preview_vae=str(folder)), "cpu")
