"""Chunks of tokens through one CLIP text encoder. Knows no text.

Of the tokenizer it knows which tokens begin, end and fill a chunk. May be called from several
threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch.nn.functional import layer_norm

from server.chunks import Tokens
from server.errors import InvalidSpec

ENDS = 2
"""A chunk's start and end token."""

PLACEHOLDER = 0
"""The token under learned vectors. Not the end token: `pooled` is taken where that stands."""

Learned = Callable[[str, int], torch.Tensor]
"""The vectors (n, width) of an embedding's name."""


class Layer(Enum):
    """Whose hidden states the UNet was trained on."""

    FINAL = auto()
    """Those of the last layer, through the final norm, as in StableDiffusionPipeline."""
    PENULTIMATE = auto()
    """Those of the layer before it, as they are, as in StableDiffusionXLPipeline."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Learned vectors and where they go: a row of the batch, and a token in it."""

    row: int
    begin: int
    vectors: torch.Tensor


class Clip:
    """A CLIPTextModel, or with `pooled` a CLIPTextModelWithProjection."""

    def __init__(
        self, tokenizer: Any, encoder: Any, *, layer: Layer, pooled: bool, learned: Learned | None
    ) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._layer = layer
        self._pooled = pooled
        self._learned = learned
        self._here = threading.local()
        table = encoder.get_input_embeddings()
        if learned:
            table.register_forward_hook(self._replace)
        # SDXL's pipeline never masks.
        masks = getattr(encoder.config, "use_attention_mask", False)
        self._masked = masks and layer is Layer.FINAL
        self.width: int = table.embedding_dim
        positions = encoder.config.max_position_embeddings
        self.window: int = min(tokenizer.model_max_length, positions)
        self.room = self.window - ENDS

    def check(self, clip_skip: int) -> None:
        """Whether there are as many layers.

        Raises:
            InvalidSpec: there are fewer.
        """
        layers = self._encoder.config.num_hidden_layers
        most = layers if self._layer is Layer.FINAL else layers - 1
        if clip_skip > most:
            told = f"the text encoder has {layers} layers; {clip_skip} cannot be skipped"
            raise InvalidSpec(told, field="clip_skip")

    def embed(
        self, chunks: Sequence[Tokens], clip_skip: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The chunks side by side: (1, chunks * window, width), and the first one's (1, pooled)."""
        output = self._run(chunks, clip_skip)
        states = self._chosen(output, clip_skip)  # (chunks, window, width)
        weights = torch.tensor([self._weights(chunk) for chunk in chunks])
        if not weights.eq(1.0).all():
            states = weigh(states, weights.to(states.device))
        return states.flatten(0, 1)[None], output.text_embeds[:1] if self._pooled else None

    def _run(self, chunks: Sequence[Tokens], clip_skip: int) -> Any:
        device = self._encoder.device
        ids = torch.tensor([self._ids(chunk) for chunk in chunks], device=device)
        mask = None
        if self._masked:
            mask = torch.tensor([self._mask(chunk) for chunk in chunks], device=device)
        with self._placing(tuple(self._placed(chunks))):
            return self._encoder(
                ids,
                attention_mask=mask,
                output_hidden_states=clip_skip > 0 or self._layer is Layer.PENULTIMATE,
            )

    def _chosen(self, output: Any, clip_skip: int) -> torch.Tensor:
        states: torch.Tensor = output.last_hidden_state
        if self._layer is Layer.PENULTIMATE:
            states = output.hidden_states[-(clip_skip + 2)]
        elif clip_skip:
            # transformers 5 took the inner `text_model` of CLIPTextModel away.
            norm = getattr(self._encoder, "text_model", self._encoder).final_layer_norm
            states = _normed(output.hidden_states[-(clip_skip + 1)], norm)
        return states

    def _ids(self, chunk: Tokens) -> list[int]:
        special = self._tokenizer
        inner = [token.id for token in chunk for _ in range(token.size)]
        padding = [special.pad_token_id] * (self.room - len(inner))
        return [special.bos_token_id, *inner, special.eos_token_id, *padding]

    def _mask(self, chunk: Tokens) -> list[int]:
        read = ENDS + sum(token.size for token in chunk)
        return [1] * read + [0] * (self.window - read)

    def _weights(self, chunk: Tokens) -> list[float]:
        inner = [token.weight for token in chunk for _ in range(token.size)]
        return [1.0, *inner, *[1.0] * (self.window - 1 - len(inner))]

    def _placed(self, chunks: Sequence[Tokens]) -> Iterator[Placed]:
        for row, chunk in enumerate(chunks):
            begin = 1
            for token in chunk:
                if token.word is not None and self._learned:
                    yield Placed(row, begin, self._learned(token.word, self.width))
                begin += token.size

    @contextmanager
    def _placing(self, placed: Sequence[Placed]) -> Iterator[None]:
        """For calls of this thread: others may run the same encoder at the same moment."""
        self._here.placed = placed
        try:
            yield
        finally:
            self._here.placed = ()

    def _replace(self, table: Any, ids: Any, rows: torch.Tensor) -> torch.Tensor:
        """A forward hook of the token embedding: CLIP takes no embeddings as its input."""
        for each in getattr(self._here, "placed", ()):
            rows[each.row, each.begin : each.begin + len(each.vectors)] = each.vectors.to(rows)
        return rows


def _normed(states: torch.Tensor, norm: Any) -> torch.Tensor:
    """Where the states are: an encoder that visits the device has gone home by now."""
    weight, bias = norm.weight.to(states.device), norm.bias.to(states.device)
    return layer_norm(states, norm.normalized_shape, weight, bias, norm.eps)


def weigh(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Hidden states (chunks, window, width) times weights (chunks, window), each chunk's mean
    restored, as A1111's `original` emphasis does."""
    before = states.float()
    after = before * weights[..., None]
    restored = after * (before.mean((1, 2)) / after.mean((1, 2)))[:, None, None]
    return restored.to(states.dtype)
