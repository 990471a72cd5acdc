"""What a worker lets go of where the device has too little memory to prepare a ticket."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.spec import Lora, TextToImage
from tests.builders import a_spec
from tests.models import loras, zoo
from tests.models.conftest import Checkpoint
from tests.models.drawing import draw, prepare

SPEC: TextToImage = a_spec(
    width=64,
    height=64,
    guidance_scale=1.0,
    loras=(Lora(name="style", scale=0.7),),
    vae="mine",
)


@pytest.fixture
def denoiser(replica: Callable[[str], Checkpoint], tmp_path: Path) -> LatentDiffusion:
    folder = replica("sd-v1").folder
    loras.write(tmp_path / "Lora" / "style.safetensors", folder, loras.Form.KOHYA)
    AutoencoderKL.from_pretrained(folder / "vae").save_pretrained(tmp_path / "VAE" / "mine")
    return load(zoo.card("sd-v1", folder), "cpu", models_dir=tmp_path)


def test_what_is_kept_only_to_be_quicker_is_let_go(denoiser: LatentDiffusion) -> None:
    state = prepare(denoiser, SPEC)
    graft = next(iter(state.blend.parts["unet"].values()))
    kept = [
        weakref.ref(each) for each in (state.conditioning.embeddings, state.autoencoder, graft.down)
    ]
    del state, graft
    gc.collect()
    assert all(each() is not None for each in kept)
    denoiser.make_room()
    gc.collect()
    assert [each() for each in kept] == [None, None, None]


def test_the_same_is_drawn_after_it_and_tickets_keep_what_they_hold(
    denoiser: LatentDiffusion,
) -> None:
    first = draw(denoiser, SPEC)
    denoiser.make_room()
    again = draw(denoiser, SPEC)
    assert torch.equal(first.latents, again.latents)
    assert first.autoencoder is not again.autoencoder
    [pixels] = (each.array() for each in denoiser.decode([first]))
    assert (pixels == denoiser.decode([again])[0].array()).all()
