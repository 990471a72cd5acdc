"""The shipped configs describe the checkpoints that were published: their parts, at real size."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("diffusers")

from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from server.models.single_file import CONFIGS, KNOWN
from server.models.sources import read_json

VAE = 83_653_863
VIT_L, VIT_H, VIT_G = 123_060_480, 340_387_840, 694_659_840

PARAMETERS: dict[str, dict[str, int]] = {
    "sd-v1": {"unet": 859_520_964, "vae": VAE, "text_encoder": VIT_L},
    "sd-v1-inpainting": {"unet": 859_535_364, "vae": VAE, "text_encoder": VIT_L},
    "sd-v2-base": {"unet": 865_910_724, "vae": VAE, "text_encoder": VIT_H},
    "sd-v2": {"unet": 865_910_724, "vae": VAE, "text_encoder": VIT_H},
    "sd-v2-depth": {"unet": 865_913_604, "vae": VAE, "text_encoder": VIT_H},
    "sd-v2-inpainting": {"unet": 865_925_124, "vae": VAE, "text_encoder": VIT_H},
    "sd-x4-upscaler": {"unet": 473_398_020, "vae": 55_325_927, "text_encoder": VIT_H},
    "sdxl-base": {
        "unet": 2_567_463_684,
        "vae": VAE,
        "text_encoder": VIT_L,
        "text_encoder_2": VIT_G,
    },
    "sdxl-inpainting": {
        "unet": 2_567_478_084,
        "vae": VAE,
        "text_encoder": VIT_L,
        "text_encoder_2": VIT_G,
    },
    "sdxl-refiner": {"unet": 2_259_526_660, "vae": VAE, "text_encoder_2": VIT_G},
}
"""Numbers in each part. The UNets' are those of the papers and model cards: 860 M for v1, 866 M for
v2, 2.6 B for SDXL base, 2.3 B for its refiner."""

KINDS: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


def built(architecture: str, part: str) -> Any:
    """The part without memory for its weights."""
    config = read_json(CONFIGS / architecture / part / "config.json")
    with init_empty_weights():
        if part.startswith("text_encoder"):
            return KINDS[part](CLIPTextConfig(**config))
        return KINDS[part].from_config(config)


def test_every_known_architecture_is_counted() -> None:
    assert set(PARAMETERS) == {*KNOWN.values(), "sd-v2"}
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == {*PARAMETERS, "clip"}


@pytest.mark.parametrize("architecture", PARAMETERS)
def test_an_architecture_has_the_published_number_of_parameters(architecture: str) -> None:
    expected = PARAMETERS[architecture]
    found = {
        part: sum(tensor.numel() for tensor in built(architecture, part).parameters())
        for part in expected
    }
    assert found == expected
