"""The `webuiapi` package as it is, and every call of its README that needs no extension."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import webuiapi
from PIL import Image, ImageDraw

from tests.api.a1111.conftest import Studio
from tests.api.pictures import picture


@pytest.fixture
def api(door: httpx.Client) -> Iterator[Any]:
    api = webuiapi.WebUIApi(baseurl=str(door.base_url).rstrip("/"))
    yield api
    api.session.close()


@pytest.fixture
def red(tmp_path: Any) -> Image.Image:
    path = tmp_path / "red.png"
    path.write_bytes(picture())
    with Image.open(path) as image:
        image.load()
        return image


def test_it_knows_us_at_once(api: Any) -> None:
    assert not api.has_controlnet
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    api.set_auth("username", "password")


def test_txt2img(api: Any, studio: Studio) -> None:
    result = api.txt2img(
        prompt="cute squirrel",
        negative_prompt="ugly, out of frame",
        seed=1003,
        styles=["anime"],
        cfg_scale=7,
        width=256,
        height=128,
    )
    assert result.image.size == (256, 128)
    assert result.info["seed"] == 1003
    assert result.info["all_negative_prompts"] == ["ugly, out of frame"]
    assert [each["code"] for each in result.info["darkroom_warnings"]] == ["styles_ignored"]
    assert result.parameters["prompt"] == "cute squirrel"
    assert (studio.spec.sampler, studio.spec.num_inference_steps) == ("euler_a", 20)


def test_what_it_always_sends_is_not_worth_a_word(api: Any) -> None:
    assert api.txt2img(prompt="x", width=128, height=128).info["darkroom_warnings"] == []
    result = api.img2img(images=[Image.new("RGB", (128, 128))], width=128, height=128)
    assert result.info["darkroom_warnings"] == []


def test_txt2img_in_several_pictures_and_with_hires_fix(api: Any, studio: Studio) -> None:
    result = api.txt2img(
        prompt="cute squirrel",
        sampler_index="DDIM",
        steps=30,
        enable_hr=True,
        hr_scale=2,
        hr_upscaler=webuiapi.HiResUpscaler.Latent,
        hr_second_pass_steps=20,
        denoising_strength=0.4,
        width=128,
        height=128,
        batch_size=2,
        n_iter=2,
    )
    assert [image.size for image in result.images] == [(256, 256)] * 4
    assert studio.spec.hires.num_inference_steps == 20


def test_img2img(api: Any, red: Image.Image, studio: Studio) -> None:
    result = api.img2img(
        images=[red], prompt="cute cat", seed=5555, cfg_scale=6.5, denoising_strength=0.6
    )
    assert result.image.size == (512, 512)
    assert (studio.spec.strength, studio.spec.guidance_scale) == (0.6, 6.5)
    assert "init_images" not in result.parameters


def test_img2img_inpainting(api: Any, red: Image.Image, studio: Studio) -> None:
    mask = Image.new("RGB", red.size, color="black")
    ImageDraw.Draw(mask).ellipse((40, 30, 90, 80), fill="white")
    result = api.img2img(
        images=[red],
        mask_image=mask,
        inpainting_fill=1,
        prompt="cute cat",
        seed=104,
        cfg_scale=5.0,
        denoising_strength=0.7,
        width=128,
        height=128,
    )
    assert result.image.size == (128, 128)
    assert studio.spec.padding_mask_crop == 0
    stored = studio.uploads[-1]
    assert (stored.getpixel((65, 55)), stored.getpixel((5, 5))) == (255, 0)


def test_extra_single_image(api: Any, red: Image.Image) -> None:
    result = api.extra_single_image(
        image=red, upscaler_1=webuiapi.Upscaler.ESRGAN_4x, upscaling_resize=1.5
    )
    assert result.image.size == (192, 192)
    assert "x4" in result.info


def test_extra_batch_images(api: Any, red: Image.Image, studio: Studio) -> None:
    result = api.extra_batch_images(
        images=[red, red], upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=1.5
    )
    assert [image.size for image in result.images] == [(192, 192)] * 2
    assert studio.specs == [], "Pillow needs no worker"


def test_a_picture_says_how_it_was_drawn(api: Any) -> None:
    drawn = api.txt2img(prompt="cute squirrel", negative_prompt="ugly", seed=3, width=128)
    found = api.png_info(drawn.image)
    assert found.info == drawn.image.info["parameters"]
    said = found.parameters
    assert (said["Prompt"], said["Negative prompt"]) == ("cute squirrel", "ugly")
    assert (said["Seed"], said["Sampler"], said["Size-1"]) == ("3", "Euler a", "128")


def test_configuration(api: Any, studio: Studio) -> None:
    options = api.get_options()
    assert options["sd_model_checkpoint"] == "demo"
    assert api.set_options({"sd_model_checkpoint": "any"}) is None
    assert api.util_get_current_model() == "any"
    api.txt2img(prompt="cute squirrel")
    assert studio.spec.checkpoint == "any"


CALLS: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("get_sd_models", lambda said: {"title", "model_name"} <= said[0].keys()),
    ("get_samplers", lambda said: "Euler a" in [each["name"] for each in said]),
    ("get_schedulers", lambda said: "karras" in [each["name"] for each in said]),
    ("get_cmd_flags", lambda said: said["api"]),
    ("get_hypernetworks", lambda said: said == []),
    ("get_face_restorers", lambda said: said == []),
    ("get_realesrgan_models", lambda said: said == []),
    ("get_prompt_styles", lambda said: said == []),
    ("get_artist_categories", lambda said: said["error"] == "HTTPException"),  # A1111's too
    ("get_artists", lambda said: said["error"] == "HTTPException"),
    ("get_progress", lambda said: said["progress"] == 0),
    ("get_embeddings", lambda said: said.keys() == {"loaded", "skipped"}),
    ("get_scripts", lambda said: said.keys() == {"txt2img", "img2img"}),
    ("get_memory", lambda said: said["ram"]["total"] > said["ram"]["free"] > 0),
    ("get_upscalers", lambda said: said[0]["name"] == "None"),
    ("get_latent_upscale_modes", lambda said: said == [{"name": "Latent"}]),
    ("get_loras", lambda said: said == []),
    ("get_sd_vae", lambda said: said == []),
    ("interrupt", lambda said: said == {}),
    ("skip", lambda said: said is None),
    ("refresh_checkpoints", lambda said: said is None),
    ("util_get_sampler_names", lambda said: "DPM++ 2M" in said),
    ("util_get_scheduler_names", lambda said: said[0] == "automatic"),
    ("util_wait_for_ready", lambda said: said is None),
)


@pytest.mark.parametrize(("call", "right"), CALLS, ids=[name for name, _ in CALLS])
def test_calls_without_arguments(api: Any, call: str, right: Callable[[Any], bool]) -> None:
    assert right(getattr(api, call)())


def test_models_are_set_by_their_name_or_one_like_it(api: Any) -> None:
    assert "any" in api.util_get_model_names()
    assert "x4" not in api.util_get_model_names(), "an upscaler draws no pictures of its own"
    api.util_set_model("anyy")
    assert api.util_get_current_model() == "any"


def test_loras_and_scripts(api: Any, studio: Studio) -> None:
    result = api.txt2img(
        prompt="a cute girl <lora:Moxin_10:0.6> shuimobysim __juice__",
        seed=1000,
        save_images=True,
        alwayson_scripts={"Simple wildcards": []},
    )
    assert [(lora.name, lora.scale) for lora in studio.spec.loras] == [("Moxin_10", 0.6)]
    assert result.info["prompt"] == "a cute girl  shuimobysim __juice__"


def test_a_script_that_is_not_here_is_an_error(api: Any) -> None:
    with pytest.raises(RuntimeError, match=r"Script .*x/y/z plot.* not found"):
        api.txt2img(prompt="x", script_name="X/Y/Z Plot", script_args=[4, "20,30"])
    with pytest.raises(RuntimeError, match="Init image not found"):
        api.img2img(images=[])


def test_controlnet_that_is_asked_for_is_named_as_ignored(api: Any, red: Image.Image) -> None:
    unit = webuiapi.ControlNetUnit(image=red, module="canny")
    result = api.txt2img(prompt="x", width=128, height=128, controlnet_units=[unit])
    assert [each["code"] for each in result.info["darkroom_warnings"]] == [
        "alwayson_scripts.ControlNet_ignored"
    ]
