"""What a txt2img request comes to."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import pytest
from PIL import Image

from server.spec import Enlarged, OutputFormat, PromptSyntax, Sampler, Sigmas
from tests.api.a1111.conftest import Studio, codes, told

ANY = {"override_settings": {"sd_model_checkpoint": "any"}}


def draw(door: httpx.Client, **fields: Any) -> httpx.Response:
    answer = door.post("/txt2img", json={"prompt": "a red circle"} | fields)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_prompt_alone_is_drawn_as_the_checkpoint_does(door: httpx.Client, studio: Studio) -> None:
    answer = draw(door)
    card = studio.spec
    assert (card.checkpoint, card.width, card.height, card.num_images) == ("demo", 128, 128, 1)
    assert (card.num_inference_steps, card.guidance_scale) == (20, 4.0)
    assert card.prompt_syntax is PromptSyntax.A1111
    assert codes(answer) == set()


def test_images_are_files_in_base64_that_say_what_they_are(
    door: httpx.Client, studio: Studio
) -> None:
    answer = draw(door, batch_size=2, n_iter=2, seed=7)
    images = [
        Image.open(io.BytesIO(base64.b64decode(each, validate=True)))
        for each in answer.json()["images"]
    ]
    info = told(answer)
    assert [image.info["parameters"].rpartition(", Version")[0] for image in images] == [
        text.rpartition(", Version")[0] for text in info["infotexts"]
    ]
    assert info["all_seeds"] == [7, 8, 9, 10]
    assert isinstance(answer.json()["info"], str)


INFO_KEYS = [
    "prompt",
    "all_prompts",
    "negative_prompt",
    "all_negative_prompts",
    "seed",
    "all_seeds",
    "subseed",
    "all_subseeds",
    "subseed_strength",
    "width",
    "height",
    "sampler_name",
    "cfg_scale",
    "steps",
    "batch_size",
    "restore_faces",
    "face_restoration_model",
    "sd_model_name",
    "sd_model_hash",
    "sd_vae_name",
    "sd_vae_hash",
    "seed_resize_from_w",
    "seed_resize_from_h",
    "denoising_strength",
    "extra_generation_params",
    "index_of_first_image",
    "infotexts",
    "styles",
    "job_timestamp",
    "clip_skip",
    "is_using_inpainting_conditioning",
    "version",
]


def test_info_has_every_key_that_a1111_gives(door: httpx.Client) -> None:
    assert set(INFO_KEYS) <= told(draw(door)).keys()


@pytest.mark.parametrize(
    ("name", "scheduler", "sampler", "sigmas"),
    [
        ("DPM++ 2M Karras", None, Sampler.DPMPP_2M, Sigmas.KARRAS),
        ("DPM++ 2M", "Karras", Sampler.DPMPP_2M, Sigmas.KARRAS),
        ("DPM++ 2M", "automatic", Sampler.DPMPP_2M, Sigmas.KARRAS),
        ("DPM++ 2M", "AUTOMATIC", Sampler.DPMPP_2M, Sigmas.KARRAS),
        ("DPM++ 2M", "uniform", Sampler.DPMPP_2M, Sigmas.DEFAULT),
        ("k_dpmpp_2m_ka", None, Sampler.DPMPP_2M, Sigmas.KARRAS),
        (None, "Exponential", Sampler.DPMPP_2M, Sigmas.EXPONENTIAL),
        ("Automatic", None, Sampler.DPMPP_2M, Sigmas.DEFAULT),
        ("dpm++ 2m sde exponential", None, Sampler.DPMPP_2M_SDE, Sigmas.EXPONENTIAL),
        ("Euler a", "Automatic", Sampler.EULER_A, Sigmas.DEFAULT),
        ("k_euler_ancestral", None, Sampler.EULER_A, Sigmas.DEFAULT),
        ("UniPC", "beta", Sampler.UNIPC, Sigmas.BETA),
        ("PLMS", None, Sampler.PNDM, Sigmas.DEFAULT),
        ("euler_a", None, Sampler.EULER_A, Sigmas.DEFAULT),
    ],
)
def test_samplers_are_known_by_every_name(
    door: httpx.Client,
    studio: Studio,
    name: str | None,
    scheduler: str | None,
    sampler: Sampler,
    sigmas: Sigmas,
) -> None:
    answer = draw(door, sampler_name=name, scheduler=scheduler)
    assert (studio.spec.sampler, studio.spec.sigmas) == (sampler, sigmas)
    assert codes(answer) == set()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sampler_name": "DPM++ 2S a"}, "sampler_substituted"),
        ({"sampler_name": "Euler a", "scheduler": "Karras"}, "scheduler_ignored"),
        ({"sampler_name": "Euler", "scheduler": "KL Optimal"}, "scheduler_ignored"),
        ({"sampler_name": "Euler a", "eta": 0.5}, "eta_ignored"),
        ({"tiling": True}, "tiling_ignored"),
        ({"restore_faces": True}, "restore_faces_ignored"),
        ({"s_noise": 0}, "s_noise_ignored"),
        ({"styles": ["anime"]}, "styles_ignored"),
        ({"subseed_strength": 0.3, "subseed": 4}, "subseed_strength_ignored"),
        ({"no_such_field": 1}, "no_such_field_ignored"),
        ({"bad\r\nname: x": 1}, "bad__name__x_ignored"),
        (
            {"alwayson_scripts": {"ControlNet": {"args": [{}]}}},
            "alwayson_scripts.ControlNet_ignored",
        ),
        (
            {"override_settings": {"eta_noise_seed_delta": 31}},
            "override_settings.eta_noise_seed_delta_ignored",
        ),
        ({"override_settings": {"samples_format": "avif"}}, "samples_format_ignored"),
        (
            {"override_settings": {"CLIP_stop_at_last_layers": 12}},
            "CLIP_stop_at_last_layers_ignored",
        ),
        ({"prompt": "a cat <hypernet:cats:1>"}, "extra_network_ignored"),
        ({"width": 1024, "height": 512}, "size_adjusted"),
        ({"refiner_checkpoint": "any", "refiner_switch_at": 1.0}, "refiner_checkpoint_ignored"),
    ],
)
def test_what_is_ignored_is_named(door: httpx.Client, fields: dict[str, Any], code: str) -> None:
    assert codes(draw(door, **fields)) == {code}


@pytest.mark.parametrize(
    "fields",
    [
        {"eta": 1.0, "sampler_name": "Euler a"},
        {"s_tmax": 0, "s_noise": 1, "s_churn": 0, "seed_resize_from_h": -1, "subseed": 5},
        {"styles": [], "tiling": None, "restore_faces": False, "script_args": [], "comments": {}},
        {"alwayson_scripts": {"ControlNet": {"args": []}, "ADetailer": {"args": [False]}}},
        {"denoising_strength": 0.7, "hr_scale": 2, "hr_upscaler": "R-ESRGAN 4x+", "hr_prompt": "x"},
        {"do_not_save_samples": True, "save_images": True, "script_name": None},
        {"override_settings": {"sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1}},
        dict.fromkeys(("seed", "steps", "width", "sampler_name", "prompt", "n_iter")),
    ],
)
def test_what_changes_nothing_is_not_worth_a_word(
    door: httpx.Client, fields: dict[str, Any]
) -> None:
    assert codes(draw(door, **fields)) == set()


def test_a_field_that_hides_json_or_is_text_is_read_as_a_number(
    door: httpx.Client, studio: Studio
) -> None:
    draw(door, steps="7", cfg_scale="3.5", width=128.0)
    assert (studio.spec.num_inference_steps, studio.spec.guidance_scale) == (7, 3.5)


@pytest.mark.parametrize("seed", [-1, None, -5])
def test_a_seed_below_zero_is_drawn_at_random(
    door: httpx.Client, studio: Studio, seed: int | None
) -> None:
    info = told(draw(door, seed=seed))
    assert info["seed"] == studio.spec.seed >= 0


def test_sampler_index_counts_where_there_is_no_sampler_name(
    door: httpx.Client, studio: Studio
) -> None:
    draw(door, sampler_index="DDIM")
    assert studio.spec.sampler is Sampler.DDIM
    draw(door, sampler_index="DDIM", sampler_name="Heun", eta=0.5)
    assert (studio.spec.sampler, studio.spec.eta) == (Sampler.HEUN, 0.0)


def test_eta_is_read_by_ddim(door: httpx.Client, studio: Studio) -> None:
    draw(door, sampler_name="DDIM", eta=0.5)
    assert studio.spec.eta == 0.5


def test_loras_come_out_of_the_prompt(door: httpx.Client, studio: Studio) -> None:
    answer = draw(door, prompt="a cat <lora:pixel-art:0.6>, red <lyco:soft>")
    assert studio.spec.prompt == "a cat , red"
    assert [(lora.name, lora.scale) for lora in studio.spec.loras] == [
        ("pixel-art", 0.6),
        ("soft", 1.0),
    ]
    assert codes(answer) == set()
    assert "<lora:pixel-art:0.6>" in told(answer)["infotexts"][0]


def test_extra_networks_can_be_left_out(door: httpx.Client, studio: Studio) -> None:
    draw(door, prompt="a cat <lora:pixel-art:0.6>", disable_extra_networks=True)
    assert (studio.spec.prompt, studio.spec.loras) == ("a cat", ())


def test_settings_of_one_request_choose_checkpoint_format_and_layers(
    door: httpx.Client, studio: Studio
) -> None:
    answer = draw(
        door,
        override_settings={
            "sd_model_checkpoint": "Any.safetensors [7460a6fa]",
            "CLIP_stop_at_last_layers": 2,
            "samples_format": "jpg",
            "sd_vae": "sharper.safetensors",
        },
    )
    spec = studio.spec
    assert (spec.checkpoint, spec.clip_skip, spec.vae) == ("any", 1, "sharper")
    assert spec.output_format is OutputFormat.JPEG
    assert told(answer)["sd_model_name"] == "any"
    draw(door)
    assert studio.spec.checkpoint == "demo", "the next request is drawn as before"


def test_override_settings_can_be_kept(door: httpx.Client, studio: Studio) -> None:
    draw(door, **ANY, override_settings_restore_afterwards=False)
    draw(door)
    assert studio.spec.checkpoint == "any"


def test_hires_fix_draws_again_larger(door: httpx.Client, studio: Studio) -> None:
    answer = draw(
        door,
        enable_hr=True,
        hr_scale=2,
        hr_upscaler="Latent",
        hr_second_pass_steps=9,
        denoising_strength=0.4,
    )
    hires = studio.spec.hires
    assert (hires.width, hires.height, hires.strength) == (256, 256, 0.4)
    assert (hires.num_inference_steps, hires.enlarged) == (9, Enlarged.LATENTS)
    assert (codes(answer), told(answer)["denoising_strength"]) == (set(), 0.4)


@pytest.mark.parametrize(
    ("fields", "size", "warned"),
    [
        ({"hr_resize_x": 192, "hr_resize_y": 192}, (192, 192), set()),
        ({"hr_resize_x": 192}, (192, 192), set()),
        ({"hr_resize_y": 256, "hr_second_pass_steps": 0}, (256, 256), set()),
        ({"hr_scale": 1.5, "hr_upscaler": "Lanczos"}, (192, 192), set()),
        ({"hr_scale": 16}, (512, 512), {"hr_scale"}),
        ({"hr_resize_x": 384, "hr_resize_y": 192}, (384, 384), {"hr_resize_x"}),
        ({"hr_upscaler": "R-ESRGAN 4x+"}, (256, 256), {"hr_upscaler"}),
        ({"hr_upscaler": "Latent (nearest)"}, (256, 256), {"hr_upscaler"}),
        ({"hr_prompt": "more"}, (256, 256), {"hr_prompt"}),
    ],
)
def test_hires_fix_finds_a_size(
    door: httpx.Client,
    studio: Studio,
    fields: dict[str, Any],
    size: tuple[int, int],
    warned: set[str],
) -> None:
    answer = draw(door, enable_hr=True, **fields)
    assert (studio.spec.hires.width, studio.spec.hires.height) == size
    assert {warning["field"] for warning in told(answer)["darkroom_warnings"]} == warned


def test_a_refiner_takes_over(door: httpx.Client, studio: Studio) -> None:
    draw(door, refiner_checkpoint="any", refiner_switch_at=0.75)
    refiner = studio.spec.refiner
    assert (refiner.checkpoint, refiner.switch_at) == ("any", 0.75)


@pytest.mark.parametrize(
    ("asked", "size"),
    [((1024, 1024), (512, 512)), ((1024, 512), (512, 256)), ((130, 61), (128, 64))],
)
def test_a_size_that_cannot_be_drawn_is_the_nearest(
    door: httpx.Client, studio: Studio, asked: tuple[int, int], size: tuple[int, int]
) -> None:
    answer = draw(door, width=asked[0], height=asked[1])
    assert (studio.spec.width, studio.spec.height) == size
    assert codes(answer) == {"size_adjusted"}


def test_pictures_can_be_left_out_of_the_answer(door: httpx.Client) -> None:
    answer = draw(door, send_images=False)
    assert answer.json()["images"] == []
    assert told(answer)["infotexts"]


def test_previews_follow_the_settings_of_a1111(door: httpx.Client, studio: Studio) -> None:
    draw(door, steps=20)
    assert studio.spec.previews == 1
    draw(door, steps=50, override_settings={"show_progress_every_n_steps": 5})
    assert studio.spec.previews == 9
    draw(door, override_settings={"live_previews_enable": False})
    assert studio.spec.previews == 0


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"sampler_name": "DPM adaptive"}, 400, "Sampler not found"),
        ({"override_settings": {"sd_model_checkpoint": "nope"}}, 404, "model 'nope' not found"),
        ({"refiner_checkpoint": "nope", "refiner_switch_at": 0.5}, 404, "model 'nope' not found"),
        ({"script_name": "X/Y/Z Plot"}, 422, "Script 'x/y/z plot' not found"),
        ({"steps": "many"}, 422, "steps: "),
        ({"steps": 9000}, 422, "steps 9000: must be"),
        ({"cfg_scale": 99}, 422, "cfg_scale 99"),
        ({"batch_size": 9, "n_iter": 9}, 422, "batch_size 81"),
        ({"width": 4000, "height": 8}, 400, "shape 4000 x 8"),
        ({"prompt": "<lora:a/b:1>"}, 422, "does not name a file"),
        ({"prompt": "<lora:a:99>"}, 422, "between -10 and 10"),
        ({"prompt": "<lora:a:1>" * 100_000}, 422, "has 1,000,000 characters, at most 20,000"),
        ({"enable_hr": True, "denoising_strength": 7}, 422, "strength"),
        ({"override_settings": "x"}, 422, "override_settings"),
    ],
)
def test_what_cannot_be_drawn_is_said_as_a1111_does(
    door: httpx.Client, fields: dict[str, Any], status: int, said: str
) -> None:
    answer = door.post("/txt2img", json=fields)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem.keys() == {"error", "detail", "body", "errors", "code"}
    assert problem["error"] == "HTTPException"
    assert said in problem["detail"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"[" * 100_000, b'{"a":[' + b"1," * 10**6])
def test_a_body_that_is_no_object_is_refused(door: httpx.Client, body: bytes) -> None:
    assert door.post("/txt2img", content=body).status_code in (400, 422)


def test_a_body_needs_no_type(door: httpx.Client) -> None:
    assert door.post("/txt2img", content=b'{"prompt": "a cat"}').status_code == 200


def test_the_answer_echoes_the_request(door: httpx.Client) -> None:
    echo = draw(door, steps=9, no_such_field=1, s_tmax=0).json()["parameters"]
    assert (echo["prompt"], echo["steps"], echo["no_such_field"]) == ("a red circle", 9, 1)
    assert echo["seed"] is None


def test_a_body_of_far_too_many_values_is_refused(door: httpx.Client) -> None:
    many = dict.fromkeys(map(str, range(40_000)))
    answer = door.post("/txt2img", json={"alwayson_scripts": many})
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "the body holds more than 32,768 values",
    )


def test_a_name_that_is_ignored_is_not_told_in_full(door: httpx.Client) -> None:
    answer = draw(door, enable_hr=True, hr_upscaler="Latent" + "x" * 10_000)
    assert all(len(each["message"]) < 200 for each in told(answer)["darkroom_warnings"])


def test_an_empty_basic_header_is_nobody(door: httpx.Client) -> None:
    answer = door.post("/txt2img", json={}, headers={"Authorization": "Basic"})
    assert answer.status_code == 200
