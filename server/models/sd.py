"""The `sd` family: how Stable Diffusion v1 and v2 and their kin read a prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from server.models.conditioning import Conditioning
from server.models.prompts import Encoded, PromptEncoder
from server.models.recent import Tally
from server.spec import Spec


class SdConditioner:
    """One CLIP text encoder."""

    def __init__(self, prompts: PromptEncoder) -> None:
        self._prompts = prompts

    def encode(self, spec: Spec, variant: Hashable = ()) -> Conditioning:
        """Rows of (tokens, width), the unconditional one first.

        As in diffusers, `clip_skip` spares the negative prompt.

        Raises:
            InvalidSpec: the prompt is too long, or the encoder has fewer layers than are skipped.
        """
        prompt = self._read(spec, variant, spec.prompt, "prompt", spec.clip_skip)
        if not spec.guided:
            return Conditioning(prompt.embedding, prompt.warnings("prompt"))
        negative = self._read(spec, variant, spec.negative_prompt, "negative_prompt")
        return Conditioning(
            self._joined(negative.embedding, prompt.embedding, spec, variant),
            prompt.warnings("prompt") + negative.warnings("negative_prompt"),
        )

    def forget(self) -> None:
        """Keep none of the prompts."""
        self._prompts.forget()

    def tallies(self) -> Sequence[Tally]:
        """How often a prompt was kept already."""
        return [self._prompts.tally]

    def _read(
        self, spec: Spec, variant: Hashable, text: str, field: str, clip_skip: int = 0
    ) -> Encoded:
        return self._prompts.encode(
            text,
            field=field,
            clip_skip=clip_skip,
            syntax=spec.prompt_syntax,
            long_prompts=spec.long_prompts,
            variant=variant,
        )

    def _joined(
        self, negative: torch.Tensor, prompt: torch.Tensor, spec: Spec, variant: Hashable
    ) -> torch.Tensor:
        longer = max(negative.shape[1], prompt.shape[1])
        skipped = (negative, 0), (prompt, spec.clip_skip)
        rows = [
            self._prompts.lengthened(each, longer, clip_skip=clip_skip, variant=variant)
            for each, clip_skip in skipped
        ]
        return torch.cat(rows)
