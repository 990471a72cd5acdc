import re

import pytest
from pydantic import ValidationError

from server.spec import GENERATION_ID, SPEC, Progress, new_generation_id
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
