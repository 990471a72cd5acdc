"""A1111's names and what they are here."""

from __future__ import annotations

import pytest

from server.api.a1111.names import card_of, sampling, stem
from server.catalog import load_catalog
from server.errors import NotFound
from server.infotext import SAMPLER_NAMES
from server.spec import Sampler, Sigmas


@pytest.mark.parametrize("sampler", Sampler)
def test_every_sampler_has_a_name_that_is_read_back(sampler: Sampler) -> None:
    for name in (SAMPLER_NAMES[sampler], SAMPLER_NAMES[sampler].upper(), sampler.value):
        assert sampling(name, None, Sampler.PNDM).sampler is sampler


def test_a_schedule_type_that_the_checkpoints_own_sampler_has_not_is_named() -> None:
    found = sampling(None, "karras", Sampler.PNDM)
    assert (found.sampler, found.sigmas) == (None, Sigmas.DEFAULT)
    assert [warning.code for warning in found.warnings] == ["scheduler_ignored"]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("model.safetensors [7460a6fa]", "model"),
        ("model.ckpt", "model"),
        ("sub/model v1.5.safetensors", "sub/model v1.5"),
        ("sd-v1-5", "sd-v1-5"),
        (" spaced [x] ", "spaced"),
    ],
)
def test_a_title_is_a_name_and_more(name: str, right: str) -> None:
    assert stem(name) == right


def test_a_card_is_found_by_its_name_in_any_case() -> None:
    catalog = load_catalog()
    assert card_of("SD-V1-5.safetensors [abc]", catalog, "x").name == "sd-v1-5"
    with pytest.raises(NotFound, match="x: model 'nope' not found; there are: demo"):
        card_of("nope", catalog, "x")
