import re

import pytest
from pydantic import ValidationError

from server.spec import (
    GENERATION_ID,
    SPEC,
    WITHOUT_KEYS,
    Inpainting,
    Lora,
    Progress,
    Sampler,
    Sweep,
    Upload,
    Upscale,
    new_generation_id,
)
from tests.builders import a_spec


def test_a_spec_survives_the_way_through_json():
    spec = a_spec(prompt='"ß" 🔴\n', guidance_scale=7.5)
    assert SPEC.validate_json(SPEC.dump_json(spec)) == spec


def test_a_spec_never_changes():
    with pytest.raises(ValidationError):
        a_spec().seed = 3


@pytest.mark.parametrize(
    "change",
    [{"guidance_scale": float("nan")}, {"seed": -1}, {"colour": "red"}, {"sampler": "magic"}],
)
def test_a_spec_that_means_nothing_cannot_be_made(change):
    with pytest.raises(ValidationError):
        a_spec(**change)


def test_guidance_of_one_needs_no_second_row():
    assert not a_spec(guidance_scale=1.0).guided
    assert a_spec(guidance_scale=1.1).guided


def test_ids_are_well_formed_and_new_every_time():
    ids = [new_generation_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(re.fullmatch(GENERATION_ID, id) for id in ids)


def test_progress_of_nothing_is_nothing():
    assert Progress().fraction == 0.0
    assert Progress(steps_done=1, steps_total=4).fraction == 0.25


UPLOAD = Upload(key="gen_1/input-image.png", sha256="0" * 64, width=8, height=8)


def a_task(kind, **fields):
    return kind(**{name: value for name, value in a_spec() if name != "task"} | fields)


def test_a_spec_is_read_back_as_its_task():
    for spec in (
        a_task(Upscale, image=UPLOAD, noise_level=20),
        a_task(
            Inpainting,
            image=UPLOAD,
            mask_image=UPLOAD,
            strength=0.5,
            padding_mask_crop=None,
            keep_outside=True,
        ),
    ):
        read = SPEC.validate_json(SPEC.dump_json(spec))
        assert (type(read), read) == (type(spec), spec)


def test_a_record_of_before_is_still_read():
    old = {name: value for name, value in a_spec().model_dump(mode="json").items() if name in OLD}
    assert SPEC.validate_python(old | {"task": "text-to-image"}).long_prompts == "truncate"


OLD = set(a_spec().model_dump()) - {
    "strict",
    "prompt_syntax",
    "long_prompts",
    "loras",
    "vae",
    "sdxl",
    "hires",
    "refiner",
    "upscaler",
    "sweep",
}


def test_the_images_of_a_generation_differ_by_their_seeds():
    spec = a_spec(seed=7, num_images=3)
    assert [spec.alone(i).seed for i in range(3)] == [7, 8, 9]
    assert spec.alone(2).num_images == 1


def test_the_last_axis_of_a_sweep_varies_fastest():
    axes = [{"field": "sampler", "values": ["ddim", "euler"]}, {"field": "seed", "values": [3, 4]}]
    spec = a_spec(seed=7, num_images=4, sweep=Sweep.model_validate({"axes": axes}))
    drawn = [spec.alone(i) for i in range(4)]
    assert [(each.sampler, each.seed) for each in drawn] == [
        (Sampler.DDIM, 3),
        (Sampler.DDIM, 4),
        (Sampler.EULER, 3),
        (Sampler.EULER, 4),
    ]
    assert {each.sweep for each in drawn} == {None}


def test_a_sweep_keeps_whole_numbers_whole_through_json():
    axes = [{"field": "num_inference_steps", "values": [5, 10]}]
    sweep = Sweep.model_validate({"axes": axes})
    read = Sweep.model_validate_json(sweep.model_dump_json())
    assert [type(value) for value in read.axes[0].values] == [int, int]


@pytest.mark.parametrize("name", ["../a", "a/b", "a\\b", ".a", "", "a\n", "a" * 129])
def test_the_name_of_an_adapter_is_never_a_path(name):
    with pytest.raises(ValidationError):
        Lora(name=name)


def test_where_a_picture_is_stored_can_be_left_out():
    spec = a_task(Upscale, image=UPLOAD, noise_level=20)
    assert "key" not in SPEC.dump_python(spec, exclude=WITHOUT_KEYS)["image"]
