"""Prompts to embeddings through one CLIP text encoder, as StableDiffusionPipeline does it.

Knows no pictures. May be called from several threads.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from server.errors import InvalidSpec
from server.models.device import on_device
from server.spec import Warn


@dataclass(frozen=True)
class Encoded:
    """A prompt as the UNet reads it, and the words that did not fit into the window."""

    embedding: torch.Tensor  # (1, window, width)
    lost: str
    window: int

    def warnings(self, field: str) -> tuple[Warn, ...]:
        """One warning if words were cut off, naming them; `field` is where they came from."""
        if not self.lost:
            return ()
        message = f"{field} is longer than {self.window} tokens; cut off: {self.lost}"
        return (Warn(code="prompt_truncated", message=message, field=field),)


class PromptEncoder:
    """A tokenizer and a text encoder behind a bounded cache of the prompts seen last."""

    def __init__(self, tokenizer: Any, text_encoder: Any, cache_size: int = 256) -> None:
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        # The tokenizer's truncation and padding are settings of the shared object, not arguments.
        self._tokenizing = threading.Lock()
        # lru_cache holds no lock while it computes: hits go on during a miss.
        self._cached = lru_cache(cache_size)(self._encode)
        positions = text_encoder.config.max_position_embeddings
        self.window = min(tokenizer.model_max_length, positions)

    def encode(self, prompt: str, clip_skip: int = 0) -> Encoded:
        """The hidden states of the last layer but `clip_skip`, normalised by the final norm.

        Raises:
            InvalidSpec: the text encoder has fewer layers than are to be skipped.
        """
        return self._cached(prompt, clip_skip)

    def _encode(self, prompt: str, clip_skip: int) -> Encoded:
        layers = self._text_encoder.config.num_hidden_layers
        if clip_skip > layers:
            raise InvalidSpec(
                f"the text encoder has {layers} layers; {clip_skip} cannot be skipped",
                field="clip_skip",
            )
        tokens, lost = self._tokenize(prompt)
        with on_device():
            return Encoded(self._embed(tokens, clip_skip), lost, self.window)

    def _tokenize(self, prompt: str) -> tuple[Any, str]:
        """Token ids and mask of (1, window), and the text of the tokens beyond."""
        with self._tokenizing:
            tokens = self._tokenizer(
                prompt,
                padding="max_length",
                max_length=self.window,
                truncation=True,
                return_tensors="pt",
            )
            whole = self._tokenizer(prompt, verbose=False).input_ids
        lost = whole[self.window - 1 : -1] if len(whole) > self.window else []
        return tokens, self._tokenizer.decode(lost) if lost else ""

    def _embed(self, tokens: Any, clip_skip: int) -> torch.Tensor:
        encoder = self._text_encoder
        masked = getattr(encoder.config, "use_attention_mask", False)
        output = encoder(
            tokens.input_ids.to(encoder.device),
            attention_mask=tokens.attention_mask.to(encoder.device) if masked else None,
            output_hidden_states=clip_skip > 0,
        )
        embedding: torch.Tensor = output.last_hidden_state
        if clip_skip:
            # transformers 5 took the inner `text_model` away.
            norm = getattr(encoder, "text_model", encoder).final_layer_norm
            embedding = norm(output.hidden_states[-(clip_skip + 1)])
        return embedding
