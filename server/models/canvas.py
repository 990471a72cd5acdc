"""How each task starts: first latents, extra channels, what is kept, what is done at the end.

What the diffusers pipelines do before their loops, in their order, because each ticket's generator
must be asked in that order. Knows no prompts, and no steps but the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch.nn.functional import interpolate

from server.errors import InvalidSpec
from server.models.autoencoder import Autoencoder
from server.models.depth import DepthReader
from server.models.painting import Painting, painting, to_tensor
from server.models.state import Canvas, Kept
from server.pixels import Inputs
from server.spec import DepthToImage, ImageToImage, Inpainting, Upscale
from server.stages import Handover, Stage


@dataclass(frozen=True, slots=True)
class Start:
    """Where a ticket's sampler stands, and the ticket's own noise."""

    sampler: Any
    timestep: torch.Tensor | None  # (1,); None where no step is taken
    generator: torch.Generator

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Latents as they would be at the first timestep.

        Raises:
            InvalidSpec: this sampler starts from nothing but noise.
        """
        self.expect_noising()
        if self.timestep is None:
            return latents
        noised: torch.Tensor = self.sampler.add_noise(latents, noise, self.timestep)
        return noised

    def expect_noising(self) -> None:
        """Refuses a sampler whose class cannot add noise to a picture."""
        if not hasattr(self.sampler, "add_noise"):
            raise InvalidSpec(
                "this sampler can only start from noise, not from a picture; choose another",
                field="sampler",
            )


class Canvases:
    """Makes the canvases of one checkpoint. May be called from several threads."""

    def __init__(
        self,
        unet: Any,
        low_res_config: Mapping[str, Any] | None,
        depth: DepthReader | None,
    ) -> None:
        self._device: torch.device = unet.device
        self._dtype: torch.dtype = unet.dtype
        self._in_channels: int = unet.config.in_channels
        # The class that all published upscalers name, so nobody's config picks it.
        self._low_res = DDPMScheduler.from_config(low_res_config) if low_res_config else None
        self._depth = depth

    def make(self, stage: Stage, inputs: Inputs, start: Start, vae: Autoencoder) -> Canvas:
        """The canvas of one image.

        Raises:
            InvalidSpec: this checkpoint's UNet is not made for the task.
        """
        spec = stage.spec
        if isinstance(spec, ImageToImage):
            return self._image_to_image(stage, spec, inputs, start, vae)
        if isinstance(spec, Inpainting):
            return self._inpainting(spec, inputs, start, vae)
        if isinstance(spec, DepthToImage):
            return self._depth_to_image(spec, inputs, start, vae)
        if isinstance(spec, Upscale):
            return self._upscale(spec, inputs, start, vae)
        self._expect(vae.channels, spec.task)
        return Canvas(self._noise(spec.width, spec.height, start, vae) * _spread(start))

    def _image_to_image(
        self, stage: Stage, spec: ImageToImage, inputs: Inputs, start: Start, vae: Autoencoder
    ) -> Canvas:
        self._expect(vae.channels, spec.task)
        if stage.takes is Handover.LATENTS:
            latents = self._handed(spec, inputs, vae)
            if stage.begin:  # an ensemble's: as noisy as they must be
                return Canvas(latents)
        else:
            latents = self._encoded(to_tensor(inputs.image, spec.width, spec.height), start, vae)
        return Canvas(start.noisy(latents, self._like(latents, start)))

    def _inpainting(
        self, spec: Inpainting, inputs: Inputs, start: Start, vae: Autoencoder
    ) -> Canvas:
        own_channels = self._in_channels == 2 * vae.channels + 1
        if not own_channels:
            self._expect(vae.channels, spec.task)
            start.expect_noising()  # after every step
        painted = painting(inputs, spec)
        sent = None
        if not own_channels or spec.strength < 1:
            sent = self._encoded(painted.picture, start, vae)
        noise = self._noise(spec.width, spec.height, start, vae)
        if sent is None or spec.strength == 1:
            latents = noise * _spread(start)
        else:
            latents = start.noisy(sent, noise)
        mask = self._mask(painted, vae)
        if not own_channels:
            assert sent is not None
            # diffusers encodes the masked picture here too. It is not used, but the generator has
            # moved on by one sample, and an ancestral sampler's noise comes after it.
            torch.randn(sent.shape, generator=start.generator, dtype=vae.dtype)
            return Canvas(latents, kept=Kept(mask, sent, noise), finish=painted.finish)
        hidden = self._encoded(painted.masked, start, vae)
        return Canvas(latents, torch.cat([mask, hidden], dim=1), finish=painted.finish)

    def _depth_to_image(
        self, spec: DepthToImage, inputs: Inputs, start: Start, vae: Autoencoder
    ) -> Canvas:
        self._expect(vae.channels + 1, spec.task)
        if self._depth is None:
            raise InvalidSpec("this checkpoint reads no depth", field="task")
        size = spec.height // vae.pixels_per_latent, spec.width // vae.pixels_per_latent
        depth = self._depth.read(inputs, spec.width, spec.height, size)
        latents = self._encoded(to_tensor(inputs.image, spec.width, spec.height), start, vae)
        noisy = start.noisy(latents, self._like(latents, start))
        return Canvas(noisy, depth.to(self._device, self._dtype))

    def _upscale(self, spec: Upscale, inputs: Inputs, start: Start, vae: Autoencoder) -> Canvas:
        if self._low_res is None or self._in_channels != vae.channels + 3:
            raise InvalidSpec("this checkpoint is no upscaler", field="task")
        factor = vae.pixels_per_latent
        picture = to_tensor(inputs.image, spec.width // factor, spec.height // factor)
        picture = picture.to(self._device, self._dtype)  # (1, 3, h, w)
        level = torch.tensor([spec.noise_level], device=self._device)
        noised = self._low_res.add_noise(picture, self._like(picture, start), level)
        latents = self._noise(spec.width, spec.height, start, vae) * _spread(start)
        return Canvas(latents, noised, class_label=level)

    def _handed(self, spec: ImageToImage, inputs: Inputs, vae: Autoencoder) -> torch.Tensor:
        """Latents of the stage before, enlarged to this one's size."""
        assert inputs.latents is not None
        latents = torch.from_numpy(inputs.latents)[None].to(self._device, self._dtype)
        size = spec.height // vae.pixels_per_latent, spec.width // vae.pixels_per_latent
        if latents.shape[2:] == size:
            return latents
        return interpolate(latents, size=size, mode="bilinear")

    def _encoded(self, picture: torch.Tensor, start: Start, vae: Autoencoder) -> torch.Tensor:
        latents = vae.encode(picture, start.generator)
        return latents.to(self._device, self._dtype)

    def _mask(self, painted: Painting, vae: Autoencoder) -> torch.Tensor:
        height, width = painted.mask.shape[2:]
        size = height // vae.pixels_per_latent, width // vae.pixels_per_latent
        return interpolate(painted.mask, size=size).to(self._device, self._dtype)

    def _noise(self, width: int, height: int, start: Start, vae: Autoencoder) -> torch.Tensor:
        """Drawn on the CPU in the model's precision, so that every worker draws the same."""
        factor = vae.pixels_per_latent
        shape = (1, vae.channels, height // factor, width // factor)
        noise = torch.randn(shape, generator=start.generator, dtype=self._dtype)
        return noise.to(self._device)

    def _like(self, tensor: torch.Tensor, start: Start) -> torch.Tensor:
        noise = torch.randn(tensor.shape, generator=start.generator, dtype=self._dtype)
        return noise.to(self._device)

    def _expect(self, channels: int, task: str) -> None:
        if self._in_channels != channels:
            raise InvalidSpec(
                f"the UNet takes {self._in_channels} channels, {task} needs {channels}",
                field="task",
            )


def _spread(start: Start) -> Any:
    """The standard deviation that the sampler's first step expects of pure noise."""
    return start.sampler.init_noise_sigma
