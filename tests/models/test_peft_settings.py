"""What peft tells beside a LoRA's tensors means what it means to peft; no pattern is compiled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from peft.utils.other import get_pattern_key

from server.errors import InvalidSpec
from server.models.peft_settings import PeftSettings
from server.models.places import Place

LAYER = "down_blocks.0.attentions.1.attn1.to_q"


def scale(rank: int = 4, **told: Any) -> float:
    settings = json.dumps({f"unet.{name}": value for name, value in told.items()})
    return PeftSettings(settings).scale(Place("unet", LAYER), rank)


def refusal(written: str) -> str:
    with pytest.raises(InvalidSpec) as refused:
        PeftSettings(written).scale(Place("unet", LAYER), 4)
    return refused.value.message


def test_alpha_is_divided_by_the_rank_or_by_its_root() -> None:
    assert scale() == 1.0
    assert scale(lora_alpha=8) == 2.0
    assert scale(lora_alpha=8, use_rslora=True) == 4.0
    assert scale(lora_alpha=None, alpha_pattern=None) == 1.0
    assert scale(lora_alpha=8, rank_pattern={"(a+)+$": 2}) == 2.0


@pytest.mark.parametrize(
    "paths",
    [
        ["to_q"],
        ["o_q", "attn1"],
        ["attn1.to_q", "to_q"],
        ["to_q", "attn1.to_q"],
        [LAYER],
        ["^to_q", f"^{LAYER}"],
        ["to_k", "attn2.to_q", "1.attn1.to_q"],
    ],
)
def test_the_first_path_that_ends_a_layers_counts_as_in_peft(paths: list[str]) -> None:
    pattern = {path: 8.0 * number for number, path in enumerate(paths, start=1)}
    theirs = pattern.get(get_pattern_key(paths, LAYER), 4.0)
    assert scale(lora_alpha=4, alpha_pattern=pattern) == theirs / 4


@pytest.mark.parametrize("path", ["(a+)+$", "(x+x+)+y", "to_.*", "", "a|b", "to_q$", "Ω"])
def test_a_pattern_that_is_no_plain_path_is_refused_and_never_matched(path: str) -> None:
    message = refusal(json.dumps({"unet.alpha_pattern": {path: 1}}))
    assert "unet.alpha_pattern" in message
    assert "only plain paths of modules are read" in message


ALPHAS = ["9" * 400, "9" * 5000, "NaN", "-Infinity", "1e999", "true", "[8]", f'"{"8" * 5000}"']


@pytest.mark.parametrize("alpha", ALPHAS, ids=range(len(ALPHAS)))
@pytest.mark.parametrize("where", ['"unet.lora_alpha": ', '"unet.alpha_pattern": {"to_q": '])
def test_an_alpha_that_is_no_finite_number_is_refused(where: str, alpha: str) -> None:
    message = refusal("{" + where + alpha + "}" * (1 + where.count("{")))
    assert message.startswith("has an alpha that is no finite number: ")
    assert len(message) < 100


NO_OBJECTS = ["", "{", "[1]", "null", "[" * 100_000, '{"a":' * 100_000, '{"unet.alpha_pattern": 5}']


@pytest.mark.parametrize("written", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
def test_settings_that_are_no_json_object_are_refused(written: str) -> None:
    assert refusal(written).startswith("has settings ")


def test_many_paths_take_no_time() -> None:
    pattern = {f"layer_{number}": 1 for number in range(100_000)} | {"to_q": 8}
    settings = PeftSettings(json.dumps({"unet.alpha_pattern": pattern}))
    assert {settings.scale(Place("unet", LAYER), 4) for _ in range(10_000)} == {2.0}
