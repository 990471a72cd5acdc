"""Words of a prompt become what diffusers' load_textual_inversion makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import save_file  # noqa: E402

from server.errors import InvalidSpec  # noqa: E402
from server.models.embeddings import Embeddings, Key  # noqa: E402
from server.models.prompts import Layer, PromptEncoder  # noqa: E402
from server.spec import LongPrompts, PromptSyntax  # noqa: E402
from tests.models import encoders  # noqa: E402

WIDTH, WIDTH_2 = encoders.WIDTH, encoders.WIDTH_2
A1111 = PromptSyntax.A1111


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def some(count: int, width: int = WIDTH) -> Any:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def encoder(folder: Path, allow_pickle: bool = True, pipe: Any = None) -> PromptEncoder:
    pipe = pipe or encoders.sd()
    words = Embeddings(folder, allow_pickle=allow_pickle)
    return PromptEncoder(pipe.tokenizer, pipe.text_encoder, words=words)


def refusal(folder: Path, prompt: str, **arguments: Any) -> str:
    with pytest.raises(InvalidSpec) as refused:
        encoder(folder, **arguments).encode(prompt, field="negative_prompt")
    assert refused.value.field == "negative_prompt"
    assert str(folder) not in refused.value.message
    return refused.value.message


def as_a1111(vectors: Any) -> dict[str, Any]:
    """As A1111's training saves a `.pt`."""
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": "some other name",
        "step": 4000,
        "sd_checkpoint": "81761151",
        "sd_checkpoint_name": "v1-5-pruned",
    }


FORMATS = {
    "A1111's .pt": lambda f, v: torch.save(as_a1111(v), f / "zed.pt"),
    "A1111's .pt with a parameter": lambda f, v: torch.save(
        as_a1111(torch.nn.Parameter(v)), f / "zed.pt"
    ),
    "the first .pt there were": lambda f, v: torch.save(
        {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(v)})}, f / "zed.pt"
    ),
    "A1111's safetensors": lambda f, v: save_file({"emb_params": v}, f / "zed.safetensors"),
    "diffusers' .bin": lambda f, v: torch.save({"<other>": v}, f / "zed.bin"),
    "diffusers' safetensors": lambda f, v: save_file({"<other>": v}, f / "zed.safetensors"),
    "a bare tensor": lambda f, v: torch.save(v, f / "zed.pt"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_word_is_what_diffusers_makes_of_it(tmp_path: Path, kind: str, count: int) -> None:
    FORMATS[kind](tmp_path, some(count))
    pipe = encoders.sd()
    pipe.load_textual_inversion({"zed": some(count)}, token="zed")
    with torch.no_grad():
        theirs, _ = pipe.encode_prompt("the zed, of zed", "cpu", 1, False)
    encoded = encoder(tmp_path).encode("the Zed, of <ZED>")
    torch.testing.assert_close(encoded.embedding, theirs, rtol=0, atol=1e-6)
    assert encoded.warnings("prompt") == ()


def test_one_vector_may_be_saved_without_a_list(tmp_path: Path) -> None:
    save_file({"<s>": some(1)[0]}, tmp_path / "zed.safetensors")
    one = encoder(tmp_path).encode("zed").embedding
    save_file({"<s>": some(1)}, tmp_path / "zed.safetensors")
    assert one.equal(encoder(tmp_path).encode("zed").embedding)


def test_both_encoders_of_sdxl_have_their_own_vectors(tmp_path: Path) -> None:
    both = {"clip_l": some(2), "clip_g": some(2, WIDTH_2)}
    save_file(both, tmp_path / "zed.safetensors")
    pipe, plain = encoders.sdxl(), encoders.sdxl()
    first, second = (
        PromptEncoder(
            tokenizer,
            text_encoder,
            layer=Layer.PENULTIMATE,
            pooled=key == "clip_g",
            words=Embeddings(tmp_path, allow_pickle=False, key=key),
        )
        for tokenizer, text_encoder, key in xl_readers(plain)
    )
    for tokenizer, text_encoder, key in xl_readers(pipe):
        pipe.load_textual_inversion(
            {"zed": both[key]}, token="zed", tokenizer=tokenizer, text_encoder=text_encoder
        )
    with torch.no_grad():
        theirs, _, pooled, _ = pipe.encode_prompt("a zed", device="cpu")
    ours = second.encode("a zed")
    wide = torch.cat([first.encode("a zed").embedding, ours.embedding], dim=-1)
    torch.testing.assert_close(wide, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.pooled, pooled, rtol=0, atol=1e-6)


def xl_readers(pipe: Any) -> tuple[tuple[Any, Any, Key], ...]:
    return (
        (pipe.tokenizer, pipe.text_encoder, "clip_l"),
        (pipe.tokenizer_2, pipe.text_encoder_2, "clip_g"),
    )


def test_names_are_whole_words_in_any_case(tmp_path: Path) -> None:
    for name in ("cat", "Bad-Hands_5", "by some artist"):
        save_file({"emb_params": some(1)}, tmp_path / f"{name}.safetensors")
    words = Embeddings(tmp_path, allow_pickle=False)
    text = "CAT, category, bobcat <cat> cat's bad-hands_5 BAD-HANDS_55 by some artist"
    found = [text[each.start : each.end] for each in words.find(text)]
    assert found == ["CAT", "<cat>", "cat", "bad-hands_5", "by some artist"]
    assert list(Embeddings(None, allow_pickle=False).find(text)) == []
    assert list(Embeddings(tmp_path / "none", allow_pickle=False).find(text)) == []


def test_the_token_that_diffusers_wrote_is_a_name_too(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    torch.save({"<cat-toy>": some(1)}, tmp_path / "toy" / "learned_embeds.bin")
    save_file({"sks": some(1)}, tmp_path / "v2.safetensors")
    words = Embeddings(tmp_path, allow_pickle=True)
    text = "<cat-toy> toy <toy> learned_embeds sks v2"
    assert [each.name for each in words.find(text)] == ["<cat-toy>", "toy", "<toy>", "sks", "v2"]


def test_plain_brackets_belong_to_a_name_and_emphasis_weighs_it(tmp_path: Path) -> None:
    save_file({"emb_params": some(2)}, tmp_path / "zed.safetensors")
    reader = encoder(tmp_path)
    plain = reader.encode("a zed").embedding
    weights = torch.ones(1, 77, 1)
    weights[:, 2:4] = 1.3
    theirs = plain * weights
    theirs *= plain.mean() / theirs.mean()
    torch.testing.assert_close(reader.encode("a (zed:1.3)", syntax=A1111).embedding, theirs)


def test_an_embedding_is_not_torn_between_chunks(tmp_path: Path) -> None:
    save_file({"emb_params": some(3)}, tmp_path / "zed.safetensors")
    reader, prompt = encoder(tmp_path), "a " * 73 + "zed"
    long = reader.encode(prompt, long_prompts=LongPrompts.CHUNK)
    second = long.embedding.split(77, dim=1)[1]
    torch.testing.assert_close(second, reader.encode("zed").embedding)
    (warning,) = reader.encode(prompt).warnings("prompt")
    assert warning.message == "prompt is longer than 77 tokens; cut off: zed"


def test_safetensors_come_before_pickles_of_the_same_name(tmp_path: Path) -> None:
    torch.save({"<a>": some(1)}, tmp_path / "zed.bin")
    save_file({"emb_params": some(2)}, tmp_path / "zed.safetensors")
    assert len(Embeddings(tmp_path, allow_pickle=True).vectors("zed", WIDTH)) == 2


def test_others_in_the_same_encoder_are_not_touched(tmp_path: Path) -> None:
    save_file({"emb_params": some(1)}, tmp_path / "zed.safetensors")
    pipe = encoders.sd()
    with torch.no_grad():
        before, _ = pipe.encode_prompt("a zed", "cpu", 1, False)
        reader = encoder(tmp_path, pipe=pipe)
        assert not reader.encode("a zed").embedding.equal(before)
        after, _ = pipe.encode_prompt("a zed", "cpu", 1, False)
    assert after.equal(before)


def test_threads_do_not_see_each_others_words(tmp_path: Path) -> None:
    for number in range(4):
        save_file({"emb_params": some(number + 1)}, tmp_path / f"w{number}.safetensors")
    pipe = encoders.sd()
    prompts = [f"{number} w{number % 4}" for number in range(32)]
    shared = encoder(tmp_path, pipe=pipe)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(shared.encode, prompts))
    alone = encoder(tmp_path, pipe=pipe)
    for prompt, encoded in zip(prompts, together, strict=True):
        assert encoded.embedding.equal(alone.encode(prompt).embedding)


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    save_file({"emb_params": some(1, 40)}, tmp_path / "zed.safetensors")
    assert refusal(tmp_path, "a zed") == (
        "negative_prompt names the embedding zed.safetensors, which was made for another kind of "
        "checkpoint: it is 40 wide, and this checkpoint needs 32"
    )
    encoder(tmp_path).encode("a cat")


def test_a_file_for_two_encoders_is_refused_by_one(tmp_path: Path) -> None:
    save_file({"clip_l": some(1), "clip_g": some(1, 48)}, tmp_path / "zed.safetensors")
    assert "two text encoders of Stable Diffusion XL" in refusal(tmp_path, "zed")
    save_file({"clip_l": some(1)}, tmp_path / "half.safetensors")
    words = Embeddings(tmp_path, allow_pickle=False, key="clip_g")
    with pytest.raises(InvalidSpec, match="none of the formats"):
        words.vectors("half", WIDTH_2)


def test_pickles_are_read_only_where_allowed(tmp_path: Path) -> None:
    torch.save(as_a1111(some(1)), tmp_path / "zed.pt")
    assert "turn on allow_pickle" in refusal(tmp_path, "zed", allow_pickle=False)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def test_no_code_in_a_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"string_to_param": {"*": some(1)}, "x": Evil()}, tmp_path / "zed.pt")
    assert "is a pickle that holds more than tensors" in refusal(tmp_path, "zed")
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    "content", [b"", b"junk" * 100, b"\x80\x02}q\x00.", b"PK\x03\x04" + b"0" * 99]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"zed{suffix}").write_bytes(content)
    message = refusal(tmp_path, "a zed")
    assert message.startswith(f"negative_prompt names the embedding zed{suffix}, which ")
    encoder(tmp_path).encode("a cat")


@pytest.mark.parametrize(
    "held",
    [
        {"a": torch.ones(1, WIDTH), "b": torch.ones(1, WIDTH)},
        {"string_to_param": {}},
        {"emb_params": torch.ones(1, 1, WIDTH)},
        {"emb_params": torch.ones(1, WIDTH, dtype=torch.int64)},
        {"emb_params": torch.full((1, WIDTH), torch.nan)},
        {"emb_params": "no tensor"},
        {"emb_params": torch.ones(1).expand(10**6, WIDTH)},
        {"emb_params": torch.ones(1, WIDTH, device="meta")},
        {"emb_params": torch.eye(WIDTH).to_sparse()},
        {("deep",): [1]},
        [1, 2],
    ],
)
def test_what_holds_no_vectors_is_refused(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "zed.pt")
    message = refusal(tmp_path, "zed")
    assert any(
        each in message
        for each in ("a list of vectors", "none of the formats", "not finite", "plain numbers")
    )


def test_more_vectors_than_a_chunk_has_room_for_are_refused(tmp_path: Path) -> None:
    for count in (76, 10_000):
        save_file({"emb_params": some(count)}, tmp_path / "zed.safetensors")
        why = refusal(tmp_path, "zed")
        assert why.endswith(f"names zed, which has {count} vectors; at most 75 fit")
    save_file({"emb_params": some(0)}, tmp_path / "zed.safetensors")
    assert "does not hold a list of vectors" in refusal(tmp_path, "zed")
