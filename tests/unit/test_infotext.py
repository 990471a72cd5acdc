import json
from typing import Any

import pytest

from server.infotext import SAMPLER_NAMES, infotext, texts, texts_of_grid
from server.spec import Hires, Inpainting, Lora, Refiner, Sampler, Sweep, Upload, Upscale, Upscaler
from tests.builders import a_spec

UPLOAD = Upload(key="gen_1/input-image.png", sha256="0" * 64, width=128, height=128)


def of(kind: Any, **fields: Any) -> Any:
    """The builder's spec as one of another task."""
    common = {name: value for name, value in a_spec() if name != "task"}
    return kind(**common | fields)


def settings(spec: Any) -> str:
    return infotext(spec, "1.0").splitlines()[-1]


def test_infotext_reads_as_a1111_writes_it():
    spec = a_spec(negative_prompt="blurry", sampler="dpmpp_2m", sigmas="karras", clip_skip=1)
    assert infotext(spec, "1.0").splitlines() == [
        "a red circle on a blue background",
        "Negative prompt: blurry",
        "Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4, Seed: 1, "
        "Size: 128x128, Model: demo, Clip skip: 2, Version: darkroom 1.0",
    ]


def test_every_sampler_has_a_name_that_people_know():
    assert set(SAMPLER_NAMES) == set(Sampler)
    assert len(set(SAMPLER_NAMES.values())) == len(Sampler)


def test_the_strength_is_called_what_a1111_calls_it():
    spec = of(
        Inpainting,
        image=UPLOAD,
        mask_image=UPLOAD,
        strength=0.6,
        padding_mask_crop=32,
        keep_outside=True,
    )
    said = "Denoising strength: 0.6, Inpaint area: Only masked, Masked area padding: 32"
    assert said in settings(spec)


@pytest.mark.parametrize(
    ("size", "enlarged", "said"),
    [
        ((256, 256), "latents", "Hires upscale: 2, Hires steps: 9, Hires upscaler: Latent"),
        ((192, 192), "picture", "Hires upscale: 1.5, Hires steps: 9, Hires upscaler: Lanczos"),
        ((200, 192), "latents", "Hires resize: 200x192, Hires steps: 9, Hires upscaler: Latent"),
    ],
)
def test_a_second_drawing_is_told_as_hires_fix(size, enlarged, said):
    width, height = size
    hires = Hires(
        width=width, height=height, enlarged=enlarged, strength=0.7, num_inference_steps=9
    )
    line = settings(a_spec(hires=hires))
    assert said in line
    assert "Size: 128x128" in line
    assert "Denoising strength: 0.7" in line


def test_a_refiner_is_told_with_when_it_takes_over():
    own = {"num_inference_steps": 4, "guidance_scale": 4, "sampler": "euler", "sigmas": "default"}
    within = Refiner(checkpoint="xl", switch_at=0.8, strength=0.3, **own)
    assert "Refiner: xl, Refiner switch at: 0.8, Version" in settings(a_spec(refiner=within))
    after = within.model_copy(update={"switch_at": 1.0})
    assert "Refiner switch at: 1, Refiner strength: 0.3" in settings(a_spec(refiner=after))
    upscaler = Upscaler(checkpoint="x4", noise_level=20, **own)
    assert "Upscaler: x4, Upscaler noise level: 20" in settings(a_spec(upscaler=upscaler))


def test_adapters_are_told_in_the_prompt_where_readers_look_for_them():
    spec = a_spec(loras=(Lora(name="ink", scale=0.5), Lora(name="oil")), vae="sharper")
    first, last = infotext(spec, "1").splitlines()
    assert first == "a red circle on a blue background <lora:ink:0.5> <lora:oil:1>"
    assert "VAE: sharper" in last
    said = a_spec(prompt="a boat <lora:ink:0.5>", loras=(Lora(name="ink", scale=0.5),))
    assert infotext(said, "1").splitlines()[0] == "a boat <lora:ink:0.5>"


def test_a_picture_of_a_sweep_tells_its_own_values():
    sweep = Sweep.model_validate({"axes": [{"field": "guidance_scale", "values": [1.5, 8]}]})
    told = texts(a_spec(sweep=sweep, num_images=2), 1, "1")
    assert "CFG scale: 8, Seed: 1," in told["parameters"]
    assert json.loads(told["darkroom"])["spec"]["guidance_scale"] == 8


def test_no_key_of_the_store_leaves_with_a_picture():
    told = texts(of(Upscale, image=UPLOAD, noise_level=20), 0, "1")
    assert "input-image" not in str(told)
    assert json.loads(told["darkroom"])["spec"]["image"]["width"] == 128
    handed = texts(of(Upscale, image=None, noise_level=20), 0, "1")
    assert json.loads(handed["darkroom"])["spec"]["image"] is None
    assert "Noise level: 20" in handed["parameters"]


def test_how_a_prompt_is_read_is_told_where_readers_would_take_it_otherwise():
    assert "Emphasis" not in settings(a_spec(prompt="a cat"))
    assert "Emphasis: None" in settings(a_spec(prompt="a (cat)"))
    assert "Emphasis: None" in settings(a_spec(negative_prompt="a [cat]"))
    assert "Emphasis: Original" in settings(a_spec(prompt="a cat", prompt_syntax="a1111"))


def test_a_value_with_a_comma_in_it_is_quoted():
    assert 'VAE: "soft, warm"' in settings(a_spec(vae="soft, warm"))


def test_no_digit_of_a_number_is_lost():
    assert "CFG scale: 7.123456789" in settings(a_spec(guidance_scale=7.123456789))
    assert "CFG scale: 7.1," in settings(a_spec(guidance_scale=7.1))


def test_a_size_that_no_short_number_gives_is_told_in_pixels():
    hires = Hires(width=1024, height=1024, enlarged="latents", strength=0.7, num_inference_steps=9)
    assert "Hires resize: 1024x1024" in settings(a_spec(width=768, height=768, hires=hires))


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (
            [{"field": "guidance_scale", "values": [1.5, 8]}],
            'X Type: CFG Scale, X Values: "1.5, 8", Version',
        ),
        (
            [
                {"field": "sampler", "values": ["euler", "dpmpp_2m"]},
                {"field": "seed", "values": [3, 4]},
            ],
            'X Type: Seed, X Values: "3, 4", Y Type: Sampler, Y Values: "Euler, DPM++ 2M", Version',
        ),
    ],
)
def test_a_grid_tells_its_axes(axes, said):
    sweep = Sweep.model_validate({"axes": axes})
    told = texts_of_grid(a_spec(sweep=sweep, num_images=len(sweep.combinations)), "1")
    assert f"Script: X/Y/Z plot, {said}" in told["parameters"]
    assert json.loads(told["darkroom"])["spec"]["sweep"]["axes"][0] == axes[0]
    alone = texts(a_spec(sweep=sweep, num_images=len(sweep.combinations)), 0, "1")
    assert "Script" not in alone["parameters"]
