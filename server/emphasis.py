"""How a prompt is read: as it stands, or with the emphasis that users of A1111 write.

Knows no tokenizer and no torch, so that the gateway shows what a worker will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from server.chunks import BACKTRACK, Token
from server.errors import InvalidSpec
from server.spec import PromptSyntax, Warn

STRONGER = 1.1
WEAKER = 1 / 1.1
MOST_WEIGHT = 100.0
MOST_DEPTH = 64
"""Open brackets at once. A text is weighed once for each of them."""

PIECE = re.compile(
    r"""
    \\[()\[\]\\]?                                        # an escape, or a lone backslash
    | :\s*(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)  # the end of (text:1.2)
    | \bBREAK\b
    | [()\[\]:]
    | (?:(?!\bBREAK\b)[^\\()\[\]:])+
    """,
    re.VERBOSE,
)
NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
COMPOSED = re.compile(r"\bAND\b")
LORA = re.compile(r"<lora:[^<>]+>", re.IGNORECASE)
WEIGHED = re.compile(r"(?<!\\)\([^():]*[^():\d\s]\s*:\s*(?:\d+(?:\.\d*)?|\.\d+)\s*\)")
"""(text:1.2), but neither (16:9) nor (at 12:30)."""
BRACKETED = re.compile(r"\[([^\[\]]*)\]")

AND_IGNORED = Warn(
    code="prompt_and_ignored",
    message="has AND in it, which is read as a word; prompts are not composed",
)
LORA_IGNORED = Warn(
    code="prompt_lora_ignored",
    message="has <lora:…> in it, which is read as words; name LoRAs in `loras`",
)
EMPHASIS_IGNORED = Warn(
    code="prompt_emphasis_ignored",
    message="has (text:1.2) in it, whose brackets and number are read as text; prompt_syntax "
    "a1111 reads them as emphasis",
)
EDITING_IGNORED = Warn(
    code="prompt_editing_ignored",
    message="has [from:to:when] or [one|other] in it, which is read as emphasis; prompts do not "
    "change between steps",
)


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text of one weight."""

    text: str
    weight: float
    places: Sequence[int]
    """Where in the prompt each of its characters stands."""

    def token(
        self, id: int, begin: int, end: int, *, size: int = 1, word: str | None = None
    ) -> Token:
        """The token that stands for the characters `begin` to `end` of the text."""
        start = self.places[begin]
        stop = self.places[end - 1] + 1 if end > begin else start
        return Token(id, self.text[begin:end], start, stop, self.weight, size, word)


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt as it is understood."""

    parts: tuple[tuple[Span, ...], ...]
    """What stands between its BREAKs: one part if there is none."""
    ignored: tuple[Warn, ...] = ()
    """Without a field; the message goes on after the field's name."""
    backtrack: int = 0
    """How far back from its border a chunk may end instead, after a comma."""


def read(prompt: str, syntax: PromptSyntax) -> Reading:
    """The prompt's texts and how much each weighs.

    Raises:
        InvalidSpec: brackets too deep or a weight too large; the message goes on after a field.
    """
    if syntax is PromptSyntax.PLAIN:
        return Reading(((Span(prompt, 1.0, range(len(prompt))),),), tuple(_plain_ignored(prompt)))
    return Reading(_Parser().parse(prompt), tuple(_ignored(prompt)), BACKTRACK)


class _Parser:
    """The pieces of a prompt, weighed as its brackets close."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._places: list[range] = []
        self._weights: list[float] = []
        self._breaks: set[int] = set()
        self._open: dict[str, list[int]] = {"(": [], "[": []}

    def parse(self, prompt: str) -> tuple[tuple[Span, ...], ...]:
        for piece in PIECE.finditer(prompt):
            self._take(piece)
        for opening, factor in (("(", STRONGER), ("[", WEAKER)):  # closed by the prompt's end
            for _ in range(len(self._open[opening])):
                self._close(opening, factor)
        for weight in self._weights:
            if not abs(weight) <= MOST_WEIGHT:  # NaN is no weight either
                raise InvalidSpec(f"has a text of weight {weight:g}; the most is {MOST_WEIGHT:g}")
        return self._parts()

    def _take(self, piece: re.Match[str]) -> None:
        text, weight = piece[0], piece["weight"]
        if text in self._open:
            self._begin(text)
        elif weight is not None and self._open["("]:
            self._close("(", float(weight))
        elif text == ")" and self._open["("]:
            self._close("(", STRONGER)
        elif text == "]" and self._open["["]:
            self._close("[", WEAKER)
        elif text == "BREAK":
            self._breaks.add(len(self._texts))
            self._add("", piece.end())
        elif text.startswith("\\"):
            self._add(text[1:], piece.end())
        else:
            self._add(text, piece.end())

    def _add(self, text: str, end: int) -> None:
        self._texts.append(text)
        self._places.append(range(end - len(text), end))
        self._weights.append(1.0)

    def _begin(self, bracket: str) -> None:
        if sum(map(len, self._open.values())) == MOST_DEPTH:
            raise InvalidSpec(f"has more than {MOST_DEPTH} brackets inside each other")
        self._open[bracket].append(len(self._texts))

    def _close(self, bracket: str, factor: float) -> None:
        for index in range(self._open[bracket].pop(), len(self._weights)):
            self._weights[index] *= factor

    def _parts(self) -> tuple[tuple[Span, ...], ...]:
        parts: list[list[int]] = [[]]
        for index in range(len(self._texts)):
            if index in self._breaks:
                parts.append([])
            elif self._texts[index]:
                parts[-1].append(index)
        return tuple(self._spans(part) for part in parts)

    def _spans(self, part: Sequence[int]) -> tuple[Span, ...]:
        """Neighbours of one weight are one text: `\\(` does not stand apart from its word."""
        spans = []
        for weight, run in groupby(part, key=self._weights.__getitem__):
            indices = list(run)
            text = "".join(self._texts[i] for i in indices)
            places = tuple(place for i in indices for place in self._places[i])
            spans.append(Span(text, weight, places))
        return tuple(spans)


def _plain_ignored(prompt: str) -> Iterator[Warn]:
    """What was surely meant for A1111."""
    if LORA.search(prompt):
        yield LORA_IGNORED
    if WEIGHED.search(prompt):
        yield EMPHASIS_IGNORED


def _ignored(prompt: str) -> Iterator[Warn]:
    """What A1111 would do with such a prompt and we do not."""
    if LORA.search(prompt):
        yield LORA_IGNORED
    if COMPOSED.search(prompt):
        yield AND_IGNORED
    if any(map(_edits, BRACKETED.findall(prompt))):
        yield EDITING_IGNORED


def _edits(bracketed: str) -> bool:
    _, colon, when = bracketed.rpartition(":")
    return "|" in bracketed or bool(colon and NUMBER.fullmatch(when.strip()))
