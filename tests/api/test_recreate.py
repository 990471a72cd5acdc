"""From what is said of a picture back to a request: of a manifest all of it, of an infotext what it
can hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.api.examples import REQUESTS
from server.api.recreate import asked_again, check_inputs
from server.api.resolve import to_spec
from server.api.retold import Telling
from server.api.schemas import GenerationRequest
from server.catalog import load_catalog
from server.errors import InvalidSpec
from server.infotext import infotext
from server.recipe import Manifest, parse_infotext
from server.spec import (
    SPACED,
    AnySpec,
    Enlarged,
    ImageToImage,
    Lora,
    Sampler,
    Sigmas,
    TextToImage,
    Upload,
)
from tests.builders import (
    COMMON,
    a_depth_to_image,
    a_hires,
    a_refiner,
    a_spec,
    an_image_to_image,
    an_inpainting,
    an_upload,
    an_upscale,
    an_upscaler,
)

CATALOG = load_catalog()
MANY = 150
SENT = {name: an_upload(name) for name in ("image", "mask_image", "depth_map")}


def resolved(asked: GenerationRequest, uploads: dict[str, Upload]) -> AnySpec:
    card = CATALOG[asked.checkpoint or "demo"]
    return to_spec(asked, card, CATALOG, uploads)[0]


def requests() -> dict[str, dict[str, Any]]:
    more = {
        "sdxl": {
            "checkpoint": "sdxl-base",
            "prompt": "a lighthouse",
            "prompt_2": "oil on canvas",
            "original_size": [512, 512],
            "negative_crops_coords_top_left": [8, 8],
            "refiner": {"checkpoint": "sdxl-refiner", "strength": 0.25},
            "aesthetic_score": 7.0,
        },
        "everything": {
            "checkpoint": "sd-v1-5",
            "prompt": "a (boat:1.2)",
            "negative_prompt": "rain",
            "prompt_syntax": "a1111",
            "long_prompts": "truncate",
            "sampler": "ddim",
            "eta": 0.3,
            "guidance_rescale": 0.7,
            "guidance_end": 0.45,
            "cache_interval": 3,
            "clip_skip": 1,
            "loras": [{"name": "ink", "scale": 0.5}],
            "vae": "sharper",
            "output_format": "webp",
            "seed": 2**53 - 1,
            "width": 640,
            "height": 448,
        },
        "sampler sweep": {"prompt": "a", "sweep": {"sampler": ["euler", "ddim"], "seed": [3, 1]}},
    }
    return REQUESTS | more


@pytest.mark.parametrize("name", requests())
def test_a_manifest_comes_to_the_spec_it_was_made_of(name: str) -> None:
    asked = GenerationRequest.model_validate_json(_json(requests()[name]))
    sent = {field: SENT[field] for field in SENT if getattr(asked, field)}
    spec = resolved(asked, sent)
    back = Manifest.model_validate(Manifest(spec=spec).told()).spec
    again = asked_again(back, CATALOG)
    assert resolved(again, sent) == spec
    strict = again.model_copy(update={"strict": True})
    assert resolved(strict, sent).model_copy(update={"strict": False}) == spec


def _json(body: dict[str, Any]) -> str:
    import json

    return json.dumps(body)


def test_what_does_not_decide_a_picture_is_left_to_the_one_who_asks() -> None:
    spec = a_spec(priority=5, deadline_seconds=1.0, previews=3, strict=True)
    again = asked_again(spec, CATALOG)
    said = again.priority, again.deadline_seconds, again.previews, again.strict
    assert said == (None, None, None, False)


def told(spec: AnySpec, **pictures: Upload) -> tuple[GenerationRequest, list[str]]:
    telling = Telling(parse_infotext(infotext(spec, "1")), CATALOG)
    asked = telling.request(pictures)
    return asked, [warning.code for warning in telling.warnings]


UNHELD = {"image", "mask_image", "depth_map", "priority", "deadline_seconds", "output_format"}
UNHELD |= {"long_prompts", "keep_outside", "num_images", "strict", "previews"}
"""What no infotext has."""


def held(spec: AnySpec) -> dict[str, Any]:
    return spec.model_dump(exclude=UNHELD)


ONE_LINE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=30)
PLAIN = ONE_LINE.filter(lambda text: "<lora:" not in text and not text.startswith("Negative"))


@st.composite
def text_to_images(draw: st.DrawFn) -> TextToImage:
    sampler = draw(st.sampled_from(Sampler))
    sigmas = draw(st.sampled_from(Sigmas)) if sampler in SPACED else Sigmas.DEFAULT
    hires = st.builds(
        a_hires,
        width=st.integers(16, 256).map(lambda n: 8 * n),
        height=st.integers(16, 256).map(lambda n: 8 * n),
        enlarged=st.sampled_from(Enlarged),
        strength=st.floats(0.01, 1),
        num_inference_steps=st.integers(1, 99),
    )
    lora = st.builds(Lora, name=st.from_regex(r"[a-z0-9_-]{1,9}", fullmatch=True), scale=SCALES)
    fields = {
        "checkpoint": draw(st.sampled_from(["demo", "sd-v1-5", "sd-v2-1"])),
        "prompt": draw(PLAIN),
        "negative_prompt": draw(PLAIN),
        "width": 8 * draw(st.integers(32, 128)),
        "height": 8 * draw(st.integers(32, 128)),
        "num_inference_steps": draw(st.integers(1, 150)),
        "guidance_scale": draw(st.floats(0, 30)),
        "guidance_rescale": draw(st.floats(0, 1)),
        "guidance_end": draw(st.floats(0, 1, exclude_min=True)),
        "cache_interval": draw(st.integers(1, 10)),
        "eta": draw(st.floats(0, 1)),
        "sampler": sampler,
        "sigmas": sigmas,
        "seed": draw(st.integers(0, 2**53 - 1)),
        "clip_skip": draw(st.integers(0, 3)),
        "loras": tuple(draw(st.lists(lora, max_size=3, unique_by=lambda each: each.name))),
        "vae": draw(st.sampled_from(["", "sharper", "a, b: c"])),
        "hires": draw(st.none() | hires),
    }
    return TextToImage(**(COMMON | fields))


UNTOLD = {"negative_prompt": "", "guidance_end": 1.0, "cache_interval": 1}
"""What an infotext leaves out where it is this; the other numbers, where they are 0."""
SCALES = st.floats(-9, 9).map(lambda scale: round(scale, 6) + 0.0)


@settings(max_examples=MANY, deadline=None)
@given(text_to_images())
def test_an_infotext_gives_back_what_it_holds(spec: TextToImage) -> None:
    asked, warnings = told(spec)
    said = asked.model_dump(exclude_none=True)
    expected = held(spec)
    for name in ("sdxl", "refiner", "upscaler", "sweep", "vae", "hires", "loras"):
        expected.pop(name)
    assert {name: said.get(name, UNTOLD.get(name, 0)) for name in expected} == expected
    assert (asked.vae or "") == spec.vae
    assert [(lora.name, lora.scale) for lora in asked.loras or []] == [
        (lora.name, lora.scale) for lora in spec.loras
    ]
    if spec.hires is None:
        assert asked.hires is None
    else:
        assert asked.hires is not None
        assert asked.hires.strength == spec.hires.strength
        assert asked.hires.num_inference_steps == spec.hires.num_inference_steps
        assert asked.hires.enlarged is spec.hires.enlarged
    assert warnings == []


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 96), st.integers(16, 96), st.integers(16, 96), st.integers(16, 96))
def test_the_larger_size_is_given_back_to_the_pixel(
    width: int, height: int, larger: int, higher: int
) -> None:
    hires = a_hires(width=8 * max(width, larger), height=8 * max(height, higher))
    spec = a_spec(width=8 * width, height=8 * height, hires=hires, checkpoint="sd-v1-5")
    asked, _ = told(spec)
    assert asked.hires is not None
    if asked.hires.scale is None:
        assert (asked.hires.width, asked.hires.height) == (hires.width, hires.height)
    else:
        from server.api.chains import resolved as chained

        card = CATALOG["sd-v1-5"]
        made = chained(asked, {"width": 8 * width, "height": 8 * height} | STEPS, card, CATALOG)
        assert (made["hires"].width, made["hires"].height) == (hires.width, hires.height)


STEPS = {"num_inference_steps": 4}


@pytest.mark.parametrize(
    "spec",
    [
        an_image_to_image(),
        an_inpainting(),
        an_inpainting(padding_mask_crop=32, strength=0.4),
        a_depth_to_image(),
        an_upscale(),
    ],
    ids=lambda spec: spec.task.value,
)
def test_an_infotext_knows_its_task(spec: AnySpec) -> None:
    asked, warnings = told(spec)
    assert asked.task is spec.task
    assert warnings == []
    for name in ("strength", "noise_level", "padding_mask_crop"):
        assert getattr(asked, name) == getattr(spec, name, None)


def test_an_infotext_knows_who_goes_on_with_it() -> None:
    refiner = a_refiner(checkpoint="sdxl-refiner", switch_at=0.8)
    upscaler = an_upscaler(checkpoint="sd-x4-upscaler", noise_level=30)
    asked, warnings = told(a_spec(refiner=refiner, upscaler=upscaler))
    assert asked.refiner is not None
    assert (asked.refiner.checkpoint, asked.refiner.switch_at) == ("sdxl-refiner", 0.8)
    assert asked.upscaler is not None
    assert (asked.upscaler.checkpoint, asked.upscaler.noise_level) == ("sd-x4-upscaler", 30)
    assert warnings == []


@pytest.mark.parametrize("prompt", ["a (red) [circle]", r"a \(red\)", "a BREAK b", "a cat"])
@pytest.mark.parametrize("syntax", ["plain", "a1111"])
def test_a_prompt_is_read_as_it_was(prompt: str, syntax: str) -> None:
    asked, _ = told(a_spec(prompt=prompt, prompt_syntax=syntax))
    assert (asked.prompt, asked.prompt_syntax) == (prompt, syntax)


def foreign(settings: str, prompt: str = "a cat <lora:ink:0.5>") -> Telling:
    return Telling(parse_infotext(f"{prompt}\nSteps: 20, {settings}, Version: v1.9.0"), CATALOG)


def test_a_foreign_infotext_is_read_as_a1111_reads_it() -> None:
    said = foreign(
        "Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 9, Size: 512x768, Model: demo.safetensors, "
        "VAE: vae-ft-mse.pt, Clip skip: 2, Denoising strength: 0.7, Hires upscale: 2, "
        "Hires upscaler: Latent, Model hash: abc, Batch size: 2, Batch pos: 1"
    )
    asked = said.request({})
    assert (asked.sampler, asked.sigmas) == (Sampler.DPMPP_2M, Sigmas.KARRAS)
    assert (asked.width, asked.height, asked.seed) == (512, 768, 9)
    assert (asked.checkpoint, asked.vae, asked.clip_skip) == ("demo", "vae-ft-mse", 1)
    assert asked.prompt == "a cat"
    assert asked.prompt_syntax == "a1111"
    assert asked.loras is not None
    assert (asked.loras[0].name, asked.loras[0].scale) == ("ink", 0.5)
    assert asked.hires is not None
    assert (asked.hires.scale, asked.hires.strength) == (2, 0.7)
    assert said.warnings == []


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ("Model: dreamlike", "model_ignored", "'dreamlike'"),
        ("Sampler: Restart", "sampler_ignored", "the checkpoint's is taken"),
        ("Sampler: DPM++ 2S a", "sampler_substituted", "nearest"),
        ("Refiner: other [abc], Refiner switch at: 0.8", "refiner_ignored", "'other [abc]'"),
        ("Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+", "hires_upscaler_ignored", "Lanczos"),
        ("Face restoration: GFPGAN", "face_restoration_ignored", "'GFPGAN'"),
        ("Variation seed: 5", "variation_seed_ignored", "'5'"),
        ("Seed: soon", "seed_ignored", "no number"),
        ("Size: large", "size_ignored", "'large'"),
        ("CFG scale: nan", "cfg_scale_ignored", "no number"),
        ("RNG: NV", "rng_ignored", "'NV'"),
        ("Script: X/Y/Z plot", "script_ignored", "X/Y/Z"),
    ],
)
def test_what_cannot_be_mapped_is_named(settings: str, code: str, words: str) -> None:
    said = foreign(settings, prompt="a cat")
    said.request({})
    assert [warning.code for warning in said.warnings] == [code]
    assert words in said.warnings[0].message
    assert said.warnings[0].field


def test_a_picture_that_is_sent_makes_it_start_from_one() -> None:
    assert foreign("Seed: 1").request({"image"}).task == "image-to-image"
    assert foreign("Seed: 1").request({"image", "mask_image"}).task == "inpainting"
    assert foreign("Denoising strength: 0.5").request({}).task == "image-to-image"
    assert foreign("Mask blur: 4").request({}).task == "inpainting"


def test_what_was_drawn_from_is_held_to_its_digest() -> None:
    spec = ImageToImage(**(COMMON | {"image": an_upload(sha256="ab" * 32), "strength": 0.5}))
    check_inputs(spec, {"image": "ab" * 32})
    with pytest.raises(InvalidSpec, match=r"input: is needed, the file of 128 x 128 pixels"):
        check_inputs(spec, {})
    with pytest.raises(InvalidSpec, match=r"input: is another one; needed is .*sha256 abab"):
        check_inputs(spec, {"image": "cd" * 32})
    with pytest.raises(InvalidSpec, match="mask_image: this picture was drawn without one"):
        check_inputs(spec, {"image": "ab" * 32, "mask_image": "ab" * 32})


def test_of_a_thousand_strange_settings_a_few_are_named() -> None:
    said = foreign(", ".join(f"Strange {number}: 1" for number in range(1000)), prompt="a cat")
    said.request({})
    assert len(said.warnings) == 31
    assert said.warnings[-1].message == "970 more settings are ignored"
