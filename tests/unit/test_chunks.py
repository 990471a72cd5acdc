"""A long prompt is cut where A1111 cuts it, or only where its user said."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from server.chunks import MOST_CHUNKS, Chunked, Token, split
from server.spec import LongPrompts


def tokens(text: str, sizes: dict[str, int] | None = None) -> list[Token]:
    """A token for every character."""
    sized = sizes or {}
    return [Token(ord(c), c, i, i + 1, size=sized.get(c, 1)) for i, c in enumerate(text)]


def chunked(
    text: str,
    room: int = 5,
    long_prompts: LongPrompts = LongPrompts.CHUNK,
    backtrack: int = 0,
    **sizes: int,
) -> Chunked:
    """The chunks of a text in which | stands for BREAK."""
    parts: list[list[Token]] = [[]]
    for token in tokens(text, sizes):
        if token.text == "|":
            parts.append([])
        else:
            parts[-1].append(token)
    return split(parts, text, room=room, long_prompts=long_prompts, backtrack=backtrack)


def texts(chunks: Sequence[Sequence[Token]]) -> list[str]:
    return ["".join(token.text for token in chunk) for chunk in chunks]


def test_what_fits_is_one_chunk_and_nothing_is_said() -> None:
    for text in ("", "abc", "abcde"):
        found = chunked(text)
        assert (texts(found.chunks), found.warning, found.refusal) == ([text], None, None)


def test_what_does_not_fit_goes_on_in_the_next_chunk() -> None:
    found = chunked("abcdefghijkl")
    assert texts(found.chunks) == ["abcde", "fghij", "kl"]
    assert found.warning is not None
    assert found.warning.code == "prompt_chunked"
    assert found.warning.message == (
        "has 12 tokens, and 5 fit into one window; it is encoded in 3 chunks, "
        "whose embeddings are joined"
    )


def test_what_does_not_fit_is_cut_off_and_named() -> None:
    found = chunked("abcdef gh", long_prompts=LongPrompts.TRUNCATE)
    assert (texts(found.chunks), texts(found.lost)) == (["abcde"], ["f gh"])
    assert found.warning is not None
    assert found.warning.message == "is longer than 7 tokens; cut off: f gh"


def test_what_does_not_fit_is_refused_where_that_is_asked() -> None:
    assert chunked("abcde", long_prompts=LongPrompts.REJECT).refusal is None
    found = chunked("abcdef", long_prompts=LongPrompts.REJECT)
    assert found.refusal == "has 6 tokens, and 5 fit into one window; long_prompts is reject"


def test_a_break_ends_a_chunk_before_it_is_full() -> None:
    found = chunked("ab|cd")
    assert (texts(found.chunks), found.warning) == (["ab", "cd"], None)
    assert texts(chunked("|a||b|").chunks) == ["", "a", "", "b"]
    assert texts(chunked("abcde|f").chunks) == ["abcde", "f"]


def test_each_part_is_cut_by_itself() -> None:
    found = chunked("abcdefg|hi|jklmnop", long_prompts=LongPrompts.TRUNCATE)
    assert texts(found.chunks) == ["abcde", "hi", "jklmn"]
    assert found.warning is not None
    assert found.warning.message.endswith("cut off: fg … op")
    assert chunked("abc|def", long_prompts=LongPrompts.REJECT).refusal is None


def test_a_chunk_ends_after_a_comma_that_is_near() -> None:
    assert texts(chunked("ab,cdef", backtrack=3).chunks) == ["ab,", "cdef"]
    assert texts(chunked("ab,cdef", backtrack=2).chunks) == ["ab,cd", "ef"]
    assert texts(chunked("abcd,ef", backtrack=3).chunks) == ["abcd,", "ef"]
    assert texts(chunked("a,bcd,ef", backtrack=5).chunks) == ["a,bcd", ",ef"], "as in A1111"
    assert texts(chunked("ab,cd", backtrack=3).chunks) == ["ab,cd"]


def test_an_embedding_is_not_torn() -> None:
    assert texts(chunked("abcX", X=3).chunks) == ["abc", "X"]
    assert texts(chunked("abXcd", X=3).chunks) == ["abX", "cd"]
    assert chunked("abXcd", X=3).count == 7
    assert texts(chunked("ab,cdX", X=4, backtrack=3).chunks) == ["ab,", "cd", "X"]


def test_there_is_a_most_of_chunks() -> None:
    assert chunked("a" * 5 * MOST_CHUNKS).refusal is None
    found = chunked("a" * 5 * MOST_CHUNKS + "b")
    assert found.refusal == "has 81 tokens in 17 chunks, and at most 16 are encoded"
    assert chunked("a|" * 17 + "b", long_prompts=LongPrompts.TRUNCATE).refusal is not None


@given(st.text(alphabet="ab,|X", max_size=60), st.sampled_from(LongPrompts), st.integers(0, 5))
def test_no_token_is_lost_or_moved(text: str, long_prompts: LongPrompts, backtrack: int) -> None:
    found = chunked(text, 5, long_prompts, backtrack, X=3)
    assert all(sum(token.size for token in chunk) <= 5 for chunk in found.chunks)
    kept = [token.start for chunk in found.chunks for token in chunk]
    lost = [token.start for run in found.lost for token in run]
    assert kept == sorted(kept)
    assert sorted(kept + lost) == [i for i, c in enumerate(text) if c != "|"]
    if long_prompts is not LongPrompts.TRUNCATE:
        assert lost == []
