"""Requests as clients send them that are not to be had from a package index, and what each of them
reads of the answers."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
from PIL import Image

from server.spec import Sampler
from tests.api.a1111.conftest import Studio, codes, told
from tests.api.pictures import picture, text

NOBODY = {"Authorization": "Basic"}
"""What they send where no password was set."""


def size_of(image: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        return opened.size


def test_sillytavern_fills_its_menus(door: httpx.Client) -> None:
    assert door.get("/options", headers=NOBODY).status_code == 200
    upscalers = [each["name"] for each in door.get("/upscalers").json()]
    assert upscalers[0] == "None"
    modes = [each["name"] for each in door.get("/latent-upscale-modes").json()]
    assert modes == ["Latent"]
    assert all("name" in each for each in door.get("/samplers").json())
    assert all("name" in each for each in door.get("/schedulers").json())
    assert all("model_name" in each for each in door.get("/sd-vae").json())
    titles = [each["title"] for each in door.get("/sd-models").json()]
    assert door.get("/options").json()["sd_model_checkpoint"] in titles


def test_sillytavern_switches_the_model_and_draws(door: httpx.Client, studio: Studio) -> None:
    door.cookies.clear()  # its server keeps none
    assert door.post("/options", json={"sd_model_checkpoint": "any"}).status_code == 200
    door.cookies.clear()
    progress = door.get("/progress").json()
    assert (progress["progress"], progress["state"]["job_count"]) == (0.0, 0)
    door.cookies.clear()
    answer = door.post(
        "/txt2img",
        headers=NOBODY,
        json={
            "prompt": "a lighthouse",
            "negative_prompt": "blurry",
            "sampler_name": "DPM++ 2M",
            "scheduler": "Karras",
            "steps": 20,
            "cfg_scale": 7,
            "width": 512,
            "height": 512,
            "restore_faces": False,
            "enable_hr": True,
            "hr_upscaler": "Latent",
            "hr_scale": 1,
            "hr_additional_modules": [],
            "denoising_strength": 0.7,
            "hr_second_pass_steps": 0,
            "seed": -1,
            "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
            "override_settings_restore_afterwards": True,
            "clip_skip": 1,
            "save_images": True,
            "send_images": True,
            "do_not_save_grid": False,
            "do_not_save_samples": False,
        },
    )
    assert answer.status_code == 200, answer.text
    assert size_of(answer.json()["images"][0]) == (512, 512)
    assert studio.spec.checkpoint == "any"
    assert codes(answer) <= {"clip_skip_ignored"}


def test_open_webui_posts_all_options_back_and_reads_images(
    door: httpx.Client, studio: Studio
) -> None:
    options = door.get("/options", headers=NOBODY).json()
    options["sd_model_checkpoint"] = "any"
    assert door.post("/options", json=options, headers=NOBODY).json() is None
    models = door.get("/sd-models", headers=NOBODY).json()
    assert [(each["title"], each["model_name"]) for each in models if each["title"] == "any"]
    sent = {"prompt": "a lighthouse", "batch_size": 2, "width": 256, "height": 256, "steps": 9}
    answer = door.post("/txt2img", json=sent | {"negative_prompt": "blurry"}, headers=NOBODY)
    found = answer.json()
    assert [size_of(image) for image in found["images"]] == [(256, 256)] * 2
    assert json.loads(found["info"])["all_prompts"] == ["a lighthouse"] * 2
    assert (studio.spec.checkpoint, studio.spec.num_inference_steps) == ("any", 9)


def test_librechat_reads_what_was_drawn_from_info(door: httpx.Client) -> None:
    sent = {
        "prompt": "a lighthouse",
        "negative_prompt": "blurry",
        "cfg_scale": 4.5,
        "steps": 22,
        "width": 1024,
        "height": 1024,
    }
    answer = door.post("/txt2img", json=sent)
    info = told(answer)
    assert "Steps: 22" in info["infotexts"][0]
    assert (info["seed"] >= 0, info["width"], info["height"]) == (True, 512, 512)
    assert codes(answer) == {"size_adjusted"}, "its size is one that the demo cannot draw"


def test_dify_names_the_checkpoint_in_each_request(door: httpx.Client, studio: Studio) -> None:
    sent: dict[str, Any] = {
        "prompt": "a lighthouse",
        "negative_prompt": "",
        "seed": -1,
        "subseed": -1,
        "subseed_strength": 0,
        "seed_resize_from_h": -1,
        "sampler_index": "DPM++ 2M Karras",
        "batch_size": 1,
        "n_iter": 1,
        "steps": 10,
        "cfg_scale": 7,
        "width": 256,
        "height": 256,
        "restore_faces": False,
        "do_not_save_samples": False,
        "do_not_save_grid": False,
        "override_settings": {"sd_model_checkpoint": "any"},
        "override_settings_restore_afterwards": False,
        "s_churn": 0,
        "s_noise": 1,
        "script_args": [],
        "alwayson_scripts": {},
    }
    answer = door.post("/txt2img", json=sent)
    assert codes(answer) == set()
    assert (studio.spec.checkpoint, studio.spec.sampler) == ("any", Sampler.DPMPP_2M)
    over = {"init_images": [text(picture(256, 256))], "denoising_strength": 0.9, "mask": None}
    answer = door.post("/img2img", json=sent | over)
    assert codes(answer) == set()
    assert size_of(answer.json()["images"][0]) == (256, 256)


def test_krita_interrupts_by_the_same_route(door: httpx.Client) -> None:
    assert door.post("/interrupt", content=b"").json() == {}
