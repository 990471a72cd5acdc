"""A UNet call that uses again what an earlier one of the same ticket has found (DeepCache, Ma et
al. 2023): what goes into the last layer of the last up block changes little from step to step.

A whole call is the UNet's own, and says what went in there. A shallow one computes the first
convolution and that last layer alone, with what a whole one found. Knows no tickets.
"""

from __future__ import annotations

from typing import Any

import torch

from server.errors import InvalidSpec

FIELD = "cache_interval"
LAST_BLOCKS = frozenset({"CrossAttnUpBlock2D", "UpBlock2D"})
"""Whose layers are known here."""
ADDITIONS = (None, "text_time")
"""What may be added to the timestep's embedding, besides classes."""

Found = torch.Tensor
"""Of each row: (R, channels, h, w)."""


class Reuse:
    """Whole and shallow calls of one UNet. For the thread alone that runs it."""

    def __init__(self, unet: Any) -> None:
        self._unet = unet

    def check(self) -> None:
        """See that it has layers enough, and of kinds that are known.

        Raises:
            InvalidSpec: there is nothing to use again; names the field.
        """
        if not _has_shape(self._unet):
            why = "the UNet of this checkpoint is not made so that features can be used again"
            raise InvalidSpec(f"{FIELD}: {why}; leave it at 1", field=FIELD)

    def whole(
        self, sample: torch.Tensor, timestep: torch.Tensor, **arguments: Any
    ) -> tuple[torch.Tensor, Found]:
        """What the UNet predicts, as it always does, and what a shallow call can use again."""
        found: list[torch.Tensor] = []
        last = self._unet.up_blocks[-1].resnets[-1]
        hook = last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        try:
            noise: torch.Tensor = self._unet(sample, timestep, return_dict=False, **arguments)[0]
        finally:
            hook.remove()
        [joined] = found  # with what comes straight from the first convolution behind it
        return noise, joined[:, : -self._unet.conv_in.out_channels]

    def shallow(
        self, found: Found, sample: torch.Tensor, timestep: torch.Tensor, **arguments: Any
    ) -> torch.Tensor:
        """What the UNet would predict if nothing but the sample had changed since then."""
        unet, block = self._unet, self._unet.up_blocks[-1]
        time = self._time(sample, timestep, arguments)
        joined = torch.cat([found, unet.conv_in(sample)], dim=1)
        hidden: torch.Tensor = block.resnets[-1](joined, time)
        if getattr(block, "has_cross_attention", False):
            told = arguments["encoder_hidden_states"]
            masked = _bias(arguments.get("encoder_attention_mask"), sample.dtype)
            hidden = block.attentions[-1](
                hidden,
                encoder_hidden_states=told,
                encoder_attention_mask=masked,
                return_dict=False,
            )[0]
        if unet.conv_norm_out is not None:
            hidden = unet.conv_act(unet.conv_norm_out(hidden))
        noise: torch.Tensor = unet.conv_out(hidden)
        return noise

    def _time(
        self, sample: torch.Tensor, timestep: torch.Tensor, arguments: dict[str, Any]
    ) -> torch.Tensor:
        """What each layer is told of the timestep, the class, and SDXL's sizes: (R, width)."""
        unet = self._unet
        embedding: torch.Tensor = unet.time_embedding(
            unet.get_time_embed(sample=sample, timestep=timestep), arguments.get("timestep_cond")
        )
        labels = arguments.get("class_labels")
        classes = unet.get_class_embed(sample=sample, class_labels=labels)
        if classes is not None:
            embedding = embedding + classes
        added = unet.get_aug_embed(
            emb=embedding,
            encoder_hidden_states=arguments["encoder_hidden_states"],
            added_cond_kwargs=arguments.get("added_cond_kwargs"),
        )
        return embedding if added is None else embedding + added


def _has_shape(unet: Any) -> bool:
    config, last = unet.config, unet.up_blocks[-1]
    plain = not (config.center_input_sample or config.class_embeddings_concat)
    plain = plain and unet.time_embed_act is None and unet.encoder_hid_proj is None
    known = type(last).__name__ in LAST_BLOCKS and last.upsamplers is None
    layers = sum(len(block.resnets) for block in unet.up_blocks)
    return plain and known and layers > 1 and config.addition_embed_type in ADDITIONS


def _bias(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """As the UNet makes it of a mask of tokens (R, tokens): (R, 1, tokens)."""
    if mask is None:
        return None
    return ((1 - mask.to(dtype)) * -10000.0).unsqueeze(1)
