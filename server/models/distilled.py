"""UNets that were taught what guidance does, and read how strong it is to be.

They make in one row what classifier-free guidance mixes of two (Luo et al. 2023, latent consistency
models). Knows no samplers and no pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.nn.functional import pad

from server.models.conditioning import Conditioning
from server.models.parts import Parts
from server.spec import Spec, Warn

UNMIXED = 1.0
"""A guidance scale at which there is one row."""


class GuidanceReader:
    """What such a UNet is told. For any other, it changes nothing."""

    def __init__(self, parts: Parts) -> None:
        self._width: int | None = parts.unet.config.time_cond_proj_dim
        self._device, self._dtype = parts.device, parts.dtype

    def unmixed(self, spec: Spec) -> Spec:
        """The spec with one row, where the UNet does by itself what guidance does."""
        if self._width is None:
            return spec
        return spec.model_copy(update={"guidance_scale": UNMIXED})

    def told(self, conditioning: Conditioning, asked: Spec) -> Conditioning:
        """With the guidance scale, where the UNet reads it, and what it then does not read."""
        if self._width is None:
            return conditioning
        scale = asked.guidance_scale - UNMIXED
        row = embedded(scale, self._width).to(self._device, self._dtype)
        warnings = (*conditioning.warnings, *_in_vain(asked))
        guidance = row.expand(conditioning.rows, -1)
        return replace(conditioning, guidance=guidance, warnings=warnings)


def _in_vain(asked: Spec) -> Iterator[Warn]:
    """What only two rows would read. Where guidance is off, the gateway has said so."""
    if not asked.guided:
        return
    names = [name for name in ("negative_prompt", "guidance_rescale") if getattr(asked, name)]
    if asked.guidance_end < 1:
        names.append("guidance_end")
    for name in names:
        message = f"{name}: is ignored, as this checkpoint guides in one row, by itself"
        yield Warn(code=f"{name}_ignored", message=message, field=name)


def embedded(scale: float, width: int) -> torch.Tensor:
    """A number as sines and cosines of falling frequencies, in float32: (1, width)."""
    half = width // 2
    # As diffusers rounds it: the angles are large, and the last digit of a frequency shows.
    fall = torch.log(torch.tensor(10_000.0)) / (half - 1)
    angles = torch.tensor(scale) * 1000.0 * torch.exp(torch.arange(half) * -fall)
    return pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))[None]
