"""Prompts to embeddings through one CLIP text encoder, as diffusers' pipelines do it.

Knows no pictures. May be called from several threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from server.chunks import Chunked, Token, about, split
from server.emphasis import Reading, Span, read
from server.errors import InvalidSpec
from server.models.clip import PLACEHOLDER, Clip, Layer
from server.models.device import on_device
from server.models.embeddings import Embeddings
from server.models.recent import Tally
from server.spec import LongPrompts, PromptSyntax, Warn

__all__ = ["Encoded", "Layer", "PromptEncoder"]


@dataclass(frozen=True)
class Encoded:
    """A prompt as the UNet reads it, and what of it was lost, joined or ignored."""

    embedding: torch.Tensor  # (1, chunks * window, width)
    pooled: torch.Tensor | None  # (1, projection), of the first chunk
    notes: tuple[Warn, ...]

    def warnings(self, field: str) -> tuple[Warn, ...]:
        """What of it was not read as it may have been meant; `field` is where it came from."""
        return about(field, self.notes)


class PromptEncoder:
    """A tokenizer and a text encoder behind a bounded cache of the prompts seen last.

    Args:
        layer: whose hidden states are wanted.
        pooled: the encoder is a CLIPTextModelWithProjection, and its `text_embeds` are wanted too.
        words: the embeddings that a prompt may name.
        cache_size: prompts of one window that are kept; longer ones count as several.
    """

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        *,
        layer: Layer = Layer.FINAL,
        pooled: bool = False,
        words: Embeddings | None = None,
        cache_size: int = 256,
    ) -> None:
        self._tokenizer = tokenizer
        self._words = words or Embeddings(None, allow_pickle=False)
        learned = words.vectors if words else None
        self._clip = Clip(tokenizer, text_encoder, layer=layer, pooled=pooled, learned=learned)
        # The tokenizer's truncation and padding are settings of the shared object, not arguments.
        self._tokenizing = threading.Lock()
        self.window = self._clip.window
        self._cached = _Cache(self._encode, cache_size * self.window)
        self.tally = self._cached.tally

    def encode(
        self,
        prompt: str,
        *,
        clip_skip: int = 0,
        syntax: PromptSyntax = PromptSyntax.PLAIN,
        long_prompts: LongPrompts = LongPrompts.TRUNCATE,
        variant: Hashable = (),
        field: str = "prompt",
    ) -> Encoded:
        """The hidden states of our layer, or of the one `clip_skip` layers before it.

        Args:
            variant: what else decides the result, such as the adapters now in the encoder.
            field: where the prompt came from, for the error.

        Raises:
            InvalidSpec: it is too long, names an embedding that cannot be used or has brackets
                that cannot be weighed; or the encoder has fewer layers than are to be skipped.
        """
        try:
            return self._cached(prompt, clip_skip, syntax, long_prompts, variant)
        except InvalidSpec as error:
            if error.field:
                raise
            raise InvalidSpec(f"{field} {error.message}", field=field) from error

    def forget(self) -> None:
        """Keep none of the prompts seen."""
        self._cached.clear()

    def lengthened(
        self, embedding: torch.Tensor, tokens: int, *, clip_skip: int, variant: Hashable
    ) -> torch.Tensor:
        """An embedding of ours with so many tokens: it goes on with empty chunks, as in A1111."""
        if embedding.shape[1] == tokens:
            return embedding
        empty = self.encode(
            "", clip_skip=clip_skip, variant=variant
        ).embedding  # (1, window, width)
        missing = (tokens - embedding.shape[1]) // empty.shape[1]
        return torch.cat([embedding, *[empty] * missing], dim=1)

    def _encode(
        self,
        prompt: str,
        clip_skip: int,
        syntax: PromptSyntax,
        long_prompts: LongPrompts,
        variant: Hashable,
    ) -> Encoded:
        self._clip.check(clip_skip)
        reading = read(prompt, syntax)
        chunked = split(
            self._parts(reading),
            prompt,
            room=self._clip.room,
            long_prompts=long_prompts,
            backtrack=reading.backtrack,
        )
        if chunked.refusal:
            raise InvalidSpec(chunked.refusal)
        with on_device():
            embedding, pooled = self._clip.embed(chunked.chunks, clip_skip)
        return Encoded(embedding, pooled, _notes(reading, chunked))

    def _parts(self, reading: Reading) -> list[list[Token]]:
        return [[token for span in part for token in self._tokens(span)] for part in reading.parts]

    def _tokens(self, span: Span) -> Iterator[Token]:
        """The tokens of a span; an embedding is one, however many vectors it has."""
        begin = 0
        for found in self._words.find(span.text):
            yield from self._tokenized(span, begin, found.start)
            yield self._word(span, found.start, found.end, found.name)
            begin = found.end
        yield from self._tokenized(span, begin, len(span.text))

    def _tokenized(self, span: Span, begin: int, end: int) -> Iterator[Token]:
        with self._tokenizing:
            tokens = self._tokenizer(
                span.text[begin:end],
                add_special_tokens=False,
                return_offsets_mapping=True,
                verbose=False,
            )
        for id, (first, last) in zip(tokens.input_ids, tokens.offset_mapping, strict=True):
            yield span.token(id, begin + first, begin + last)

    def _word(self, span: Span, begin: int, end: int, name: str) -> Token:
        size, room = len(self._words.vectors(name, self._clip.width)), self._clip.room
        if size > room:
            raise InvalidSpec(f"names {name}, which has {size} vectors; at most {room} fit")
        return span.token(PLACEHOLDER, begin, end, size=size, word=name)


class _Cache:
    """The prompts encoded last, as many as have so many tokens in all.

    Holds no lock while it computes: hits go on during a miss.
    """

    def __init__(self, encode: Callable[..., Encoded], most_tokens: int) -> None:
        self._encode = encode
        self._most = most_tokens
        self._held: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._lock = threading.Lock()
        self.tally = Tally()

    def __call__(self, *asked: Hashable) -> Encoded:
        with self._lock:
            self.tally.count(asked in self._held)
            if asked in self._held:
                self._held.move_to_end(asked)
                return self._held[asked]
        encoded = self._encode(*asked)
        with self._lock:
            self._held[asked] = encoded
            while sum(each.embedding.shape[1] for each in self._held.values()) > self._most:
                self._held.popitem(last=False)
        return encoded

    def clear(self) -> None:
        """Keep none."""
        with self._lock:
            self._held.clear()


def _notes(reading: Reading, chunked: Chunked) -> tuple[Warn, ...]:
    return reading.ignored if chunked.warning is None else (*reading.ignored, chunked.warning)
