"""Prompts are read as people write them for A1111, and only where they ask for it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.emphasis import MOST_DEPTH, Reading, read
from server.errors import InvalidSpec
from server.spec import PromptSyntax


def a1111(prompt: str) -> Reading:
    return read(prompt, PromptSyntax.A1111)


def weighed(prompt: str) -> list[tuple[str, Any]]:
    """The spans of a prompt without BREAK."""
    (part,) = a1111(prompt).parts
    return [(span.text, pytest.approx(span.weight)) for span in part]


def texts(prompt: str) -> list[str]:
    return ["".join(span.text for span in part) for part in a1111(prompt).parts]


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("", []),
        ("a cat", [("a cat", 1.0)]),
        ("(cat)", [("cat", 1.1)]),
        ("[cat]", [("cat", 1 / 1.1)]),
        ("((cat))", [("cat", 1.21)]),
        ("a (red:1.5) cat", [("a ", 1.0), ("red", 1.5), (" cat", 1.0)]),
        ("(red: 1.5 )", [("red", 1.5)]),
        ("(red:.5)", [("red", 0.5)]),
        ("(red:-1)", [("red", -1.0)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        ("([cat])", [("cat", 1.0)]),
        (r"\(cat\)", [("(cat)", 1.0)]),
        (r"(a\)b)", [("a)b", 1.1)]),
        (r"back\\slash \[x\]", [("back\\slash [x]", 1.0)]),
        (r"lone\ backslash", [("lone backslash", 1.0)]),
        ("a) b]", [("a) b]", 1.0)]),
        ("(a b", [("a b", 1.1)]),
        ("[a (b", [("a ", 1 / 1.1), ("b", 1.0)]),
        ("ratio 16:9", [("ratio 16:9", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("x:1.2)", [("x:1.2)", 1.0)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("()", []),
    ],
)
def test_weights_are_those_of_a1111(prompt: str, spans: list[tuple[str, float]]) -> None:
    assert weighed(prompt) == spans


def test_plain_text_keeps_its_brackets() -> None:
    prompt = r"(a:1.2) [b] \( BREAK AND"
    reading = read(prompt, PromptSyntax.PLAIN)
    ((span,),) = reading.parts
    assert (span.text, span.weight) == (prompt, 1.0)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a BREAK b", ["a ", " b"]),
        ("BREAK", ["", ""]),
        ("a\nBREAK\nBREAK\nb", ["a\n", "\n", "\nb"]),
        ("(a BREAK b:1.3)", ["a ", " b"]),
        ("BREAKFAST break", ["BREAKFAST break"]),
        ("a,BREAK,b", ["a,", ",b"]),
    ],
)
def test_break_begins_a_new_part(prompt: str, parts: list[str]) -> None:
    assert texts(prompt) == parts


def test_emphasis_reaches_across_a_break() -> None:
    assert [[s.weight for s in part] for part in a1111("(a BREAK b:1.3)").parts] == [[1.3], [1.3]]


@pytest.mark.parametrize(
    ("prompt", "codes"),
    [
        ("a cat AND a dog", ["prompt_and_ignored"]),
        ("a cat and a dog, BRAND", []),
        ("[cat:dog:0.5]", ["prompt_editing_ignored"]),
        ("[dog:10]", ["prompt_editing_ignored"]),
        ("[cat|dog]", ["prompt_editing_ignored"]),
        ("[cat: dog], a:1", []),
        ("a cat <lora:ink:0.8>", ["prompt_lora_ignored"]),
        ("a cat (red:1.2)", []),
    ],
)
def test_what_a1111_would_do_and_we_do_not_is_said(prompt: str, codes: list[str]) -> None:
    assert [warning.code for warning in a1111(prompt).ignored] == codes


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("(a:101)", "has a text of weight 101; the most is 100"),
        ("(a:" + "9" * 400 + ")", "has a text of weight inf; the most is 100"),
        ("((a:" + "9" * 400 + "):0)", "has a text of weight nan; the most is 100"),
        ("(" * 65 + "a", "has more than 64 brackets inside each other"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_in_words(prompt: str, message: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        a1111(prompt)
    assert refused.value.message == message


@pytest.mark.parametrize(
    "prompt",
    [
        "[a" * MOST_DEPTH + "b" * 20_000,
        ("[" * MOST_DEPTH + "]" * MOST_DEPTH) * 150,
        "[" * (MOST_DEPTH - 1) + "(b)" * 6_500,
        "(a)" * 7_000,
        "[" + "|" * 20_000,
        "[:" + "1" * 20_000,
        "(:" * 30 + "1" * 20_000,
        ":" + " " * 20_000,
        "BREAK" * 4_000,
        "\\" * 20_000,
    ],
)
def test_no_prompt_takes_long_to_read(prompt: str) -> None:
    began = time.perf_counter()
    a1111(prompt)
    assert time.perf_counter() - began < 2.0


@given(st.text(alphabet=st.sampled_from("ab ()[]:.12\\|,BREAK"), max_size=60))
def test_every_character_stands_where_it_says(prompt: str) -> None:
    if sum(map(prompt.count, "([")) > MOST_DEPTH:
        return
    try:
        reading = a1111(prompt)
    except InvalidSpec:
        return
    for part in reading.parts:
        for span in part:
            assert span.text == "".join(prompt[place] for place in span.places)
            assert list(span.places) == sorted(set(span.places))


WORDS = st.text(alphabet="abc", min_size=1, max_size=4)
TREES = st.recursive(
    WORDS.map(lambda word: (word, [(word, 1.0)])),
    lambda inner: st.tuples(
        st.lists(inner, min_size=1, max_size=3), st.sampled_from([0.5, 1.1, 1 / 1.1, 2.0])
    ).map(lambda made: emphasised(*made)),
    max_leaves=8,
)


def emphasised(
    inner: list[tuple[str, list[tuple[str, float]]]], weight: float
) -> tuple[str, list[tuple[str, float]]]:
    """A prompt around others, and what each of its words then weighs."""
    around = {1.1: "({})", 1 / 1.1: "[{}]"}.get(weight, f"({{}}:{weight})")
    words = [(word, each * weight) for _, made in inner for word, each in made]
    return around.format(" ".join(text for text, _ in inner)), words


@given(TREES)
def test_brackets_multiply(tree: tuple[str, list[tuple[str, float]]]) -> None:
    prompt, words = tree
    (part,) = a1111(prompt).parts
    found = [(word, pytest.approx(span.weight)) for span in part for word in span.text.split()]
    assert found == words


@pytest.mark.parametrize(
    ("prompt", "codes"),
    [
        ("a (red:1.2) cat", ["prompt_emphasis_ignored"]),
        ("a ((red, 1girl : .9 )) cat", ["prompt_emphasis_ignored"]),
        ("<LORA:ink:1> a cat", ["prompt_lora_ignored"]),
        ("<lora:ink> (a cat:2)", ["prompt_lora_ignored", "prompt_emphasis_ignored"]),
        ("a (red) cat [small], (16:9), (at 12:30), \\(red:1.2\\), 2:1, <lora:>", []),
    ],
)
def test_what_was_surely_meant_for_a1111_is_listed_where_prompts_are_plain(
    prompt: str, codes: list[str]
) -> None:
    reading = read(prompt, PromptSyntax.PLAIN)
    assert [warning.code for warning in reading.ignored] == codes
    assert reading.parts[0][0].text == prompt


@pytest.mark.parametrize("piece", ["(", "(a:1", "<lora:", "(: 1", "a:1 1", "(a : 1."])
def test_looking_for_what_was_meant_for_a1111_takes_no_longer_for_hostile_prompts(
    piece: str,
) -> None:
    begun = time.process_time()
    read(piece * (100_000 // len(piece)), PromptSyntax.PLAIN)
    assert time.process_time() - begun < 1
