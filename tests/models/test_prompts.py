"""Prompts become the embeddings that diffusers would make of them, once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from server.models.prompts import PromptEncoder
from tests.models import oracle
from tests.models.conftest import Checkpoint

PROMPTS = ["", "a red circle", "Ünïcode  and\nspaces!", "x" * 74, "x" * 75, "x" * 76, "word " * 99]


def fresh(checkpoint: Checkpoint, cache_size: int = 8) -> PromptEncoder:
    pipe, _ = oracle.pipeline(checkpoint.folder)
    return PromptEncoder(pipe.tokenizer, pipe.text_encoder, cache_size)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("mask", [False, True])
def test_embeddings_are_those_of_the_pipeline(
    v1: Checkpoint, v2: Checkpoint, monkeypatch: pytest.MonkeyPatch, prompt: str, mask: bool
) -> None:
    for checkpoint in (v1, v2):
        pipe, _ = oracle.pipeline(checkpoint.folder)
        monkeypatch.setattr(pipe.text_encoder.config, "use_attention_mask", mask, raising=False)
        with torch.no_grad():
            theirs, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
        assert fresh(checkpoint).encode(prompt).embedding.equal(theirs)


def test_the_same_prompt_is_encoded_once(v1: Checkpoint) -> None:
    encoder = fresh(v1)
    first = encoder.encode("a red circle")
    assert encoder.encode("a red circle") is first
    assert encoder.encode("a red circle", 1) is not first
    assert encoder.encode("a blue circle") is not first


def test_the_cache_is_bounded(v1: Checkpoint) -> None:
    encoder = fresh(v1, cache_size=2)
    first = encoder.encode("1")
    encoder.encode("2")
    encoder.encode("3")
    assert encoder.encode("1") is not first


def test_a_prompt_that_fits_loses_nothing(v1: Checkpoint) -> None:
    encoded = fresh(v1).encode("x" * 75)
    assert encoded.warnings("prompt") == ()


def test_a_prompt_that_does_not_fit_names_what_is_lost(v1: Checkpoint) -> None:
    (warning,) = fresh(v1).encode("x" * 75 + " the moon").warnings("negative_prompt")
    assert warning.code == "prompt_truncated"
    assert warning.field == "negative_prompt"
    assert warning.message == "negative_prompt is longer than 77 tokens; cut off: the moon"


def test_a_hit_does_not_wait_for_a_miss(v1: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = fresh(v1)
    known = encoder.encode("known")
    encoding, go_on = threading.Event(), threading.Event()
    embed = encoder._embed

    def slow(*arguments: object) -> torch.Tensor:
        encoding.set()
        assert go_on.wait(10)
        return embed(*arguments)

    monkeypatch.setattr(encoder, "_embed", slow)
    with ThreadPoolExecutor(1) as other:
        miss = other.submit(encoder.encode, "unknown")
        assert encoding.wait(10)
        assert encoder.encode("known") is known
        assert not miss.done()
        go_on.set()


def test_many_threads_may_encode_at_once(v1: Checkpoint) -> None:
    encoder = fresh(v1, cache_size=64)
    prompts = [f"{'long ' * (number % 40)}{number}" for number in range(64)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, prompts))
    for prompt, encoded in zip(prompts, together, strict=True):
        assert encoded.embedding.equal(fresh(v1).encode(prompt).embedding)
