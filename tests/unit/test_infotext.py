from server.infotext import SAMPLER_NAMES, infotext
from server.spec import Sampler
from tests.builders import a_spec


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
