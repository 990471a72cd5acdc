"""Prompts as a checkpoint's text encoders get them, and what they would lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from server import chunks, emphasis
from server.api.schemas import Asked
from server.api.vocabularies import read_tokenizers
from server.catalog import Card
from server.chunks import Chunked
from server.emphasis import Reading
from server.errors import InvalidSpec
from server.spec import LongPrompts, PromptSyntax, Warn

WINDOW = 77
"""Tokens that a CLIP text encoder reads at once, its start and end token among them."""
CHUNK = WINDOW - 2

MAX_CHARACTERS = 20_000
FIELD = "prompt"

REQUEST_EXAMPLE = {"checkpoint": "demo", "prompt": "a (red:1.2) circle", "prompt_syntax": "a1111"}
_READ: dict[str, Any] = {
    "count": 3,
    "tokens": [
        {"id": 320, "text": "a", "start": 0, "end": 1, "weight": 1.0},
        {"id": 553, "text": "red", "start": 3, "end": 6, "weight": 1.2},
        {"id": 580, "text": "circle", "start": 12, "end": 18, "weight": 1.0},
    ],
    "chunks": [{"start": 0, "end": 3}],
    "cut": None,
}
EXAMPLE: dict[str, Any] = {
    "checkpoint": "demo",
    **_READ,
    "window": WINDOW,
    "prompt_syntax": "a1111",
    "long_prompts": "chunk",
    "encoders": [{"name": "text_encoder", **_READ, "refused": None, "warnings": []}],
}


class TokenizeRequest(Asked):
    """A prompt, and the checkpoint whose text encoders read it."""

    checkpoint: str | None = Field(None, description="The server's default if left out.")
    prompt: str = Field(description="What to look at.", max_length=MAX_CHARACTERS)
    prompt_syntax: PromptSyntax | None = Field(
        None, description="The checkpoint's default if left out."
    )
    long_prompts: LongPrompts | None = Field(
        None, description="The checkpoint's default if left out."
    )


class Token(BaseModel):
    """One token, and the characters of the prompt it stands for."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str
    start: int = Field(description="Index of its first character in the prompt.")
    end: int = Field(description="Index after its last character.")
    weight: float = Field(description="Its emphasis.")


class Chunk(BaseModel):
    """A run of at most 75 tokens, as indices into `tokens`."""

    start: int
    end: int


class Cut(BaseModel):
    """What is left out."""

    tokens: int = Field(description="How many.")
    text: str = Field(description="The words; where several places are cut, … stands between.")


class EncoderTokens(BaseModel):
    """What one text encoder makes of the prompt with this `long_prompts`."""

    name: str = Field(description="As the part is called in a diffusers folder.")
    count: int
    tokens: tuple[Token, ...]
    chunks: tuple[Chunk, ...] = Field(
        description="What is encoded; what would be, if it is refused."
    )
    cut: Cut | None = Field(description="What is not; null if all is.")
    refused: str | None = Field(description="Why it cannot be drawn; null if it can.")
    warnings: tuple[Warn, ...] = Field(description="As a generation would have them.")


class Tokenized(BaseModel):
    """A prompt as the first text encoder gets it, without the start and end tokens, and as each
    does."""

    checkpoint: str
    count: int
    tokens: tuple[Token, ...]
    chunks: tuple[Chunk, ...] = Field(description="All that the prompt makes.")
    window: int = Field(description="Tokens one reading takes, start and end token included.")
    cut: Cut | None = Field(description="What a single window leaves out; null if all fits.")
    prompt_syntax: PromptSyntax
    long_prompts: LongPrompts
    encoders: tuple[EncoderTokens, ...]


class Tokenizers:
    """Each checkpoint's tokenizers, read from local files when they are first asked for."""

    def __init__(self) -> None:
        self._read: dict[str, dict[str, Tokenizer]] = {}

    def tokenize(self, card: Card, asked: TokenizeRequest) -> Tokenized:
        """The tokens of a prompt, and what becomes of them.

        Raises:
            InvalidSpec: its brackets cannot be weighed.
            Unavailable: the gateway's host does not have the checkpoint's tokenizer.
        """
        syntax = asked.prompt_syntax or card.defaults.prompt_syntax
        long_prompts = asked.long_prompts or card.defaults.long_prompts
        reading = _read(asked.prompt, syntax)
        prompts = {
            name: _Prompt(asked.prompt, reading, tokenizer)
            for name, tokenizer in self._of(card).items()
        }
        first = next(iter(prompts.values()))
        return Tokenized(
            checkpoint=card.name,
            count=len(first.tokens),
            tokens=first.shown(),
            chunks=first.borders(first.split(LongPrompts.CHUNK)),
            window=WINDOW,
            cut=first.cut(first.split(LongPrompts.TRUNCATE)),
            prompt_syntax=syntax,
            long_prompts=long_prompts,
            encoders=tuple(prompt.told(name, long_prompts) for name, prompt in prompts.items()),
        )

    def _of(self, card: Card) -> dict[str, Tokenizer]:
        if card.name not in self._read:
            self._read[card.name] = read_tokenizers(card)
        return self._read[card.name]


class _Prompt:
    """A prompt under one tokenizer."""

    def __init__(self, prompt: str, reading: Reading, tokenizer: Tokenizer) -> None:
        self._prompt = prompt
        self._reading = reading
        self._parts = [
            [token for span in part for token in _tokens(span, tokenizer)] for part in reading.parts
        ]
        self.tokens = tuple(token for part in self._parts for token in part)

    def split(self, long_prompts: LongPrompts) -> Chunked:
        return chunks.split(
            self._parts,
            self._prompt,
            room=CHUNK,
            long_prompts=long_prompts,
            backtrack=self._reading.backtrack,
        )

    def told(self, name: str, long_prompts: LongPrompts) -> EncoderTokens:
        chunked = self.split(long_prompts)
        noted = self._reading.ignored
        if chunked.warning is not None:
            noted = (*noted, chunked.warning)
        return EncoderTokens(
            name=name,
            count=len(self.tokens),
            tokens=self.shown(),
            chunks=self.borders(chunked),
            cut=self.cut(chunked),
            refused=f"{FIELD} {chunked.refusal}" if chunked.refusal else None,
            warnings=chunks.about(FIELD, noted),
        )

    def shown(self) -> tuple[Token, ...]:
        return tuple(map(Token.model_validate, self.tokens))

    def borders(self, chunked: Chunked) -> tuple[Chunk, ...]:
        return () if chunked.chunks == ((),) else tuple(self._borders(chunked.chunks))

    def cut(self, chunked: Chunked) -> Cut | None:
        if not chunked.lost:
            return None
        texts = (self._prompt[run[0].start : run[-1].end] for run in chunked.lost)
        return Cut(tokens=sum(map(len, chunked.lost)), text=" … ".join(texts))

    def _borders(self, held: Sequence[chunks.Tokens]) -> Iterator[Chunk]:
        # Two tokens of one character are equal in all but their place.
        places = {id(token): place for place, token in enumerate(self.tokens)}
        end = 0
        for chunk in held:
            start = places[id(chunk[0])] if chunk else end
            end = start + len(chunk)
            yield Chunk(start=start, end=end)


def _read(prompt: str, syntax: PromptSyntax) -> Reading:
    try:
        return emphasis.read(prompt, syntax)
    except InvalidSpec as error:
        raise InvalidSpec(f"{FIELD} {error.message}", field=FIELD) from error


def _tokens(span: emphasis.Span, tokenizer: Tokenizer) -> Iterator[chunks.Token]:
    encoding = tokenizer.encode(span.text, add_special_tokens=False)
    for id, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
        yield span.token(id, begin, end)
