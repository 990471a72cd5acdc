"""What a UNet is told of the prompts. Knows no pictures and no samplers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch.nn.functional import pad

from server.models.recent import Tally
from server.spec import Spec, Warn


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Of one ticket: one row, or the unconditional and the conditional one."""

    embeddings: torch.Tensor  # (rows, tokens, width)
    warnings: tuple[Warn, ...] = ()
    pooled: torch.Tensor | None = None  # (rows, width), SDXL's
    time_ids: torch.Tensor | None = None  # (rows, 5 or 6), SDXL's sizes and scores
    guidance: torch.Tensor | None = None  # (rows, width), where the UNet reads it

    @property
    def rows(self) -> int:
        """Samples of a UNet call this makes of a ticket."""
        return len(self.embeddings)

    @property
    def conditional(self) -> Conditioning:
        """Without the unconditional row."""
        last = slice(-1, None)
        return replace(
            self,
            embeddings=self.embeddings[last],
            pooled=None if self.pooled is None else self.pooled[last],
            time_ids=None if self.time_ids is None else self.time_ids[last],
            guidance=None if self.guidance is None else self.guidance[last],
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """What conditionings of one UNet call must agree on. The number of tokens is not in it."""
        time_ids = () if self.time_ids is None else self.time_ids.shape[1:]
        return (*self.embeddings.shape[2:], *time_ids)


class Conditioner(Protocol):
    """A family's way from a spec to a conditioning."""

    def encode(self, spec: Spec, variant: Hashable = ()) -> Conditioning:
        """The prompts of one image, encoded (cached). May be called from several threads.

        Args:
            variant: what else decides the result, such as the LoRAs that the encoders wear.

        Raises:
            InvalidSpec: this checkpoint cannot read it; names the field.
        """

    def forget(self) -> None:
        """Keep none of what was encoded."""

    def tallies(self) -> Sequence[Tally]:
        """How often a prompt was kept already, by text encoder."""


def unet_arguments(batch: Sequence[Conditioning]) -> dict[str, object]:
    """Conditionings of one shape as keyword arguments of UNet2DConditionModel."""
    arguments = _joined([each.embeddings for each in batch])
    if batch[0].pooled is not None:
        arguments["added_cond_kwargs"] = {
            "text_embeds": torch.cat([each.pooled for each in batch if each.pooled is not None]),
            "time_ids": torch.cat([each.time_ids for each in batch if each.time_ids is not None]),
        }
    if batch[0].guidance is not None:
        read = [each.guidance for each in batch if each.guidance is not None]
        arguments["timestep_cond"] = torch.cat(read)
    return arguments


def _joined(embeddings: Sequence[torch.Tensor]) -> dict[str, object]:
    """Prompts of several chunks share a call with shorter ones, which are padded and masked."""
    longest = max(each.shape[1] for each in embeddings)
    if all(each.shape[1] == longest for each in embeddings):
        return {"encoder_hidden_states": torch.cat(list(embeddings))}
    return {
        "encoder_hidden_states": torch.cat(
            [pad(each, (0, 0, 0, longest - each.shape[1])) for each in embeddings]
        ),  # (R, longest, width)
        "encoder_attention_mask": torch.cat(
            [
                pad(each.new_ones(each.shape[:2]), (0, longest - each.shape[1]))
                for each in embeddings
            ]
        ),  # (R, longest)
    }
