"""Between pictures and latents, through a checkpoint's autoencoder. Knows no prompts or steps."""

from __future__ import annotations

import logging
import threading
from copy import copy, deepcopy
from typing import Any

import torch

from server.errors import OutOfMemory
from server.models.device import device_errors

log = logging.getLogger("darkroom.models")

TILE_ABOVE = 256 * 256
"""Latents per picture. Above, the attention of an untiled call takes more memory than it is worth;
below, tiles would only make the picture differ a little from the reference."""

_precisely = threading.Lock()
"""One such decoding at a time on a device, whatever the autoencoder: it takes twice the memory."""


class Autoencoder:
    """An AutoencoderKL and its scaling. Latents are always scaled, pictures are in -1 to 1.

    Args:
        tile_above: pictures of more latents than this go through it in overlapping tiles.
    """

    def __init__(self, vae: Any, tile_above: int = TILE_ABOVE) -> None:
        self._vae = vae
        # The same weights. Not `enable_tiling`, which would hold for other threads' pictures too.
        self._in_tiles = copy(vae)
        self._in_tiles.use_tiling = True
        self._tile_above = tile_above
        self.dtype: torch.dtype = vae.dtype
        self.channels: int = vae.config.latent_channels
        self.pixels_per_latent: int = 2 ** (len(vae.config.block_out_channels) - 1)

    def with_weights(self, vae: Any) -> Autoencoder:
        """Another one that is used as this one is."""
        return Autoencoder(vae, self._tile_above)

    def encode(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Pictures of (B, 3, height, width) to a sample of their latents (B, channels, h, w)."""
        factor = self.pixels_per_latent
        vae = self._fitting(pictures.shape[-2] // factor, pictures.shape[-1] // factor)
        sent = pictures.to(device=vae.device, dtype=vae.dtype)
        latents: torch.Tensor = vae.encode(sent).latent_dist.sample(generator)
        return self._scaled(latents)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of (B, channels, h, w) to pictures of (B, 3, height, width)."""
        vae = self._fitting(*latents.shape[-2:])
        raw = self._raw(latents.to(vae.dtype))
        pictures: torch.Tensor = vae.decode(raw, return_dict=False)[0]
        return pictures

    def decode_precisely(self, latents: torch.Tensor) -> torch.Tensor:
        """As `decode`, in float32: with a copy of the weights that is gone afterwards, and in tiles
        where it does not fit otherwise. May be called from several threads.

        What overflows in half precision is mended by it. The copy is not kept, because what others
        get must not depend on what was drawn before.
        """
        with _precisely:
            precise = Autoencoder(deepcopy(self._vae).float(), self._tile_above)
            try:
                with device_errors():
                    return precise.decode(latents.float())
            except OutOfMemory as error:
                log.warning("decoding in tiles: %s", error)
            # Not under `except`: the error holds on to all that the failed call had in memory.
            return Autoencoder(precise._vae, 0).decode(latents.float())

    def _fitting(self, height: int, width: int) -> Any:
        return self._in_tiles if height * width > self._tile_above else self._vae

    def _scaled(self, raw: torch.Tensor) -> torch.Tensor:
        mean, spread = self._statistics(raw)
        scaled: torch.Tensor = (raw - mean) * self._vae.config.scaling_factor / spread
        return scaled

    def _raw(self, scaled: torch.Tensor) -> torch.Tensor:
        mean, spread = self._statistics(scaled)
        raw: torch.Tensor = scaled / self._vae.config.scaling_factor * spread + mean
        return raw

    def _statistics(self, latents: torch.Tensor) -> tuple[torch.Tensor | float, ...]:
        """Some of SDXL's autoencoders tell mean and spread of each channel."""
        config = self._vae.config
        mean, spread = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or spread is None:
            return 0.0, 1.0
        return tuple(latents.new_tensor(each).view(1, -1, 1, 1) for each in (mean, spread))
