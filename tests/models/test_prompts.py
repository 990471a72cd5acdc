"""Prompts become the embeddings that diffusers would make of them, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from server.emphasis import read  # noqa: E402
from server.errors import InvalidSpec  # noqa: E402
from server.models.prompts import Encoded, Layer, PromptEncoder  # noqa: E402
from server.spec import LongPrompts, PromptSyntax  # noqa: E402
from tests.models import encoders  # noqa: E402

A1111 = PromptSyntax.A1111
CHUNK, REJECT = LongPrompts.CHUNK, LongPrompts.REJECT
PROMPTS = [
    "",
    "a red circle",
    "Ünïcode  and\nspaces!",
    "(all:1.2) of [it] BREAK AND \\(so on\\)",
    "the <|endoftext|> of the <|startoftext|>",
    "x" * 74,
    "x" * 75,
    "x" * 76,
    "word " * 99,
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def v1() -> Any:
    return encoders.sd()


@pytest.fixture(scope="module")
def v2() -> Any:
    return encoders.sd(pad_token="!")


@pytest.fixture(scope="module")
def xl() -> Any:
    return encoders.sdxl()


def fresh(pipe: Any, cache_size: int = 8) -> PromptEncoder:
    return PromptEncoder(pipe.tokenizer, pipe.text_encoder, cache_size=cache_size)


def both(pipe: Any) -> tuple[PromptEncoder, PromptEncoder]:
    """SDXL's encoders."""
    layer = Layer.PENULTIMATE
    return (
        PromptEncoder(pipe.tokenizer, pipe.text_encoder, layer=layer),
        PromptEncoder(pipe.tokenizer_2, pipe.text_encoder_2, layer=layer, pooled=True),
    )


def windows(encoded: Encoded) -> tuple[Any, ...]:
    return encoded.embedding.split(77, dim=1)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("mask", [False, True])
def test_embeddings_are_those_of_the_pipeline(
    v1: Any, v2: Any, monkeypatch: pytest.MonkeyPatch, prompt: str, mask: bool
) -> None:
    for pipe in (v1, v2):
        monkeypatch.setattr(pipe.text_encoder.config, "use_attention_mask", mask, raising=False)
        with torch.no_grad():
            theirs, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
        assert fresh(pipe).encode(prompt).embedding.equal(theirs)


@settings(max_examples=200, deadline=None)
@given(prompt=st.text(max_size=120))
def test_the_tokens_of_any_text_are_those_of_the_pipeline(v2: Any, prompt: str) -> None:
    read: list[Any] = []

    def spy(_: Any, ids: Any) -> None:
        read.append(ids[0])

    hook = v2.text_encoder.get_input_embeddings().register_forward_pre_hook(spy)
    fresh(v2).encode(prompt)
    hook.remove()
    theirs = v2.tokenizer(prompt, padding="max_length", max_length=77, truncation=True)
    assert read[0].tolist() == [theirs.input_ids]


def test_skipped_layers_are_those_of_the_pipeline(v1: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The pipeline still looks for the inner model that transformers 5 took away.
    monkeypatch.setattr(type(v1.text_encoder), "text_model", property(lambda it: it), raising=False)
    for clip_skip in (1, 2, 3):
        with torch.no_grad():
            theirs, _ = v1.encode_prompt("a cat", "cpu", 1, False, clip_skip=clip_skip)
        assert fresh(v1).encode("a cat", clip_skip=clip_skip).embedding.equal(theirs)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_both_encoders_are_those_of_the_xl_pipeline(xl: Any, prompt: str, clip_skip: int) -> None:
    with torch.no_grad():
        theirs, _, pooled, _ = xl.encode_prompt(
            prompt, prompt_2="another", device="cpu", clip_skip=clip_skip
        )
    first, second = both(xl)
    ours = second.encode("another", clip_skip=clip_skip)
    both_wide = (first.encode(prompt, clip_skip=clip_skip).embedding, ours.embedding)
    assert torch.cat(both_wide, dim=-1).equal(theirs)
    assert ours.pooled is not None
    assert ours.pooled.equal(pooled)


def test_the_refiner_has_the_second_encoder_alone() -> None:
    pipe = encoders.sdxl(text_encoder=None, tokenizer=None)
    with torch.no_grad():
        theirs, _, pooled, _ = pipe.encode_prompt("the cat", device="cpu")
    ours = PromptEncoder(
        pipe.tokenizer_2, pipe.text_encoder_2, layer=Layer.PENULTIMATE, pooled=True
    ).encode("the cat")
    assert ours.embedding.equal(theirs)
    assert ours.pooled is not None
    assert ours.pooled.equal(pooled)


def test_more_layers_than_there_are_cannot_be_skipped(v1: Any, xl: Any) -> None:
    for encoder, most in ((fresh(v1), 3), (both(xl)[0], 2)):
        encoder.encode("a", clip_skip=most)
        with pytest.raises(InvalidSpec, match="has 3 layers") as refused:
            encoder.encode("a", clip_skip=most + 1)
        assert refused.value.field == "clip_skip"


def test_the_same_prompt_is_encoded_once(v1: Any) -> None:
    encoder = fresh(v1)
    first = encoder.encode("a red circle")
    assert encoder.encode("a red circle") is first
    assert encoder.encode("a red circle", clip_skip=1) is not first
    assert encoder.encode("a red circle", variant="a lora") is not first
    assert encoder.encode("a red circle", syntax=A1111) is not first
    assert encoder.encode("a red circle", long_prompts=CHUNK) is not first
    assert encoder.encode("a blue circle") is not first


def test_the_cache_is_bounded(v1: Any) -> None:
    encoder = fresh(v1, cache_size=2)
    first = encoder.encode("1")
    encoder.encode("2")
    encoder.encode("3")
    assert encoder.encode("1") is not first


def test_a_long_prompt_takes_the_room_of_several(v1: Any) -> None:
    encoder = fresh(v1, cache_size=3)
    first = encoder.encode("1")
    long = encoder.encode("a" * 80, long_prompts=CHUNK)
    assert encoder.encode("1") is first
    encoder.encode("2")
    assert encoder.encode("1") is first
    assert encoder.encode("a" * 80, long_prompts=CHUNK) is not long
    assert encoder.encode("a" * 300, long_prompts=CHUNK).embedding.shape[1] == 4 * 77


def test_a_prompt_that_fits_loses_nothing(v1: Any) -> None:
    for mode in LongPrompts:
        encoded = fresh(v1).encode("x" * 75, long_prompts=mode)
        assert (encoded.embedding.shape[1], encoded.warnings("prompt")) == (77, ())


def test_a_prompt_that_does_not_fit_names_what_is_lost(v1: Any) -> None:
    (warning,) = fresh(v1).encode("x" * 75 + " The Moon").warnings("negative_prompt")
    assert warning.code == "prompt_truncated"
    assert warning.field == "negative_prompt"
    assert warning.message == "negative_prompt is longer than 77 tokens; cut off: The Moon"


def test_a_prompt_that_does_not_fit_is_refused_where_that_is_asked(v1: Any) -> None:
    with pytest.raises(InvalidSpec) as refused:
        fresh(v1).encode("x" * 76, long_prompts=REJECT, field="negative_prompt")
    assert refused.value.field == "negative_prompt"
    assert refused.value.message == (
        "negative_prompt has 76 tokens, and 75 fit into one window; long_prompts is reject"
    )


@pytest.mark.parametrize("mask", [False, True])
def test_a_long_prompt_is_its_chunks_side_by_side(
    v2: Any, monkeypatch: pytest.MonkeyPatch, mask: bool
) -> None:
    monkeypatch.setattr(v2.text_encoder.config, "use_attention_mask", mask, raising=False)
    encoder = fresh(v2)
    parts = ["a" * 75, "b" * 75, "moon"]
    encoded = encoder.encode("".join(parts), long_prompts=CHUNK)
    with torch.no_grad():
        theirs = [v2.encode_prompt(part, "cpu", 1, False)[0] for part in parts]
    # "a" * 75 ends a word and the first chunk does not.
    assert [window.shape for window in windows(encoded)] == [(1, 77, 32)] * 3
    torch.testing.assert_close(windows(encoded)[2], theirs[2])
    torch.testing.assert_close(windows(encoded)[0][:, :75], theirs[0][:, :75])
    (warning,) = encoded.warnings("prompt")
    assert (warning.code, warning.field) == ("prompt_chunked", "prompt")
    assert warning.message.startswith("prompt has 154 tokens, and 75 fit into one window; it is")
    assert "3 chunks" in warning.message


def test_pooled_is_that_of_the_first_chunk(xl: Any) -> None:
    _, second = both(xl)
    long = second.encode("a " * 75 + "moon", long_prompts=CHUNK)
    assert long.embedding.shape == (1, 2 * 77, encoders.WIDTH_2)
    first = second.encode("a " * 75).pooled
    torch.testing.assert_close(long.pooled, first)


def test_unweighed_a1111_syntax_is_plain_text(v1: Any) -> None:
    encoder = fresh(v1)
    assert encoder.encode(r"a cat \(the\)", syntax=A1111).embedding.equal(
        encoder.encode("a cat (the)").embedding
    )


def test_emphasis_weighs_hidden_states_and_restores_their_mean(v1: Any) -> None:
    encoder = fresh(v1)
    plain = encoder.encode("ab cd").embedding
    weights = torch.ones(1, 77, 1)
    weights[:, 3:5] = 1.5  # after the start token, a and b
    theirs = plain * weights
    theirs *= plain.mean() / theirs.mean()
    ours = encoder.encode("ab (cd:1.5)", syntax=A1111)
    torch.testing.assert_close(ours.embedding, theirs)
    assert ours.warnings("prompt") == ()


def test_emphasis_of_one_chunk_leaves_the_others_alone(v1: Any) -> None:
    encoder = fresh(v1)
    first, second = windows(encoder.encode("ab BREAK (cd)", syntax=A1111))
    torch.testing.assert_close(first, encoder.encode("ab").embedding)
    torch.testing.assert_close(second, encoder.encode("(cd)", syntax=A1111).embedding)


def test_a_break_is_no_reason_to_warn(v1: Any) -> None:
    for mode in LongPrompts:
        encoded = fresh(v1).encode("ab BREAK cd", syntax=A1111, long_prompts=mode)
        assert (encoded.embedding.shape[1], encoded.warnings("prompt")) == (2 * 77, ())


def test_a_chunk_ends_after_a_comma_in_a1111_syntax_alone(v1: Any) -> None:
    encoder, prompt = fresh(v1), "a" * 70 + ", " + "b" * 10
    first, second = windows(encoder.encode(prompt, syntax=A1111, long_prompts=CHUNK))
    torch.testing.assert_close(first, encoder.encode("a" * 70 + ",").embedding)
    torch.testing.assert_close(second, encoder.encode("b" * 10).embedding)
    _, second = windows(encoder.encode(prompt, long_prompts=CHUNK))
    torch.testing.assert_close(second, encoder.encode("b" * 6).embedding)


def test_what_is_not_done_of_a1111s_syntax_is_said(v1: Any) -> None:
    (warning,) = fresh(v1).encode("a AND b", syntax=A1111).warnings("prompt")
    assert warning.code == "prompt_and_ignored"
    assert warning.message.startswith("prompt has AND in it")
    assert fresh(v1).encode("a AND b").warnings("prompt") == ()


def test_brackets_that_cannot_be_weighed_are_refused(v1: Any) -> None:
    with pytest.raises(InvalidSpec) as refused:
        fresh(v1).encode("(a:1000)", syntax=A1111, field="negative_prompt")
    assert refused.value.field == "negative_prompt"
    assert refused.value.message.startswith("negative_prompt has a text of weight 1000")


def test_hidden_states_keep_their_precision(v1: Any) -> None:
    pipe = encoders.sd()
    pipe.text_encoder.to(torch.bfloat16)
    assert fresh(pipe).encode("(a)", syntax=A1111).embedding.dtype is torch.bfloat16


def test_a_hit_does_not_wait_for_a_miss(v1: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = fresh(v1)
    known = encoder.encode("known")
    encoding, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        encoding.set()
        assert go_on.wait(10)
        return read(*arguments)

    monkeypatch.setattr("server.models.prompts.read", slow)
    with ThreadPoolExecutor(1) as other:
        miss = other.submit(encoder.encode, "unknown")
        assert encoding.wait(10)
        assert encoder.encode("known") is known
        assert not miss.done()
        go_on.set()


def test_many_threads_may_encode_at_once(v1: Any) -> None:
    encoder = fresh(v1, cache_size=64)
    prompts = [f"{'long ' * (number % 40)}{number}" for number in range(64)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, prompts))
    for prompt, encoded in zip(prompts, together, strict=True):
        assert encoded.embedding.equal(fresh(v1).encode(prompt).embedding)
