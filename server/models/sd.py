"""The `sd` family: Stable Diffusion v1 and v2. Satisfies the engine's Denoiser by shape.

What StableDiffusionPipeline does in one call is cut here at the step: every ticket owns its
sampler, its seeded CPU generator and its latents, and only the UNet call is shared. Knows
nothing of the queue, nor of which tickets are batched and when.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from server.models.device import on_device, peak_memory_bytes
from server.models.pictures import Picture, to_pictures
from server.models.prompts import PromptEncoder
from server.models.samplers import Samplers
from server.spec import TextToImage, Warn


@dataclass(slots=True)
class State:
    """One ticket's picture in the making. `advance` alone changes it."""

    spec: TextToImage
    sampler: Any
    timesteps: tuple[torch.Tensor, ...]  # () each, on the CPU, as the sampler wants them
    row_timesteps: tuple[torch.Tensor, ...]  # (rows,) each, on the device, as the UNet wants them
    latents: torch.Tensor  # (1, channels, height / 8, width / 8)
    embeddings: torch.Tensor  # (rows, window, width), the unconditional one first
    step_arguments: dict[str, Any]
    warnings: tuple[Warn, ...]
    bucket: Hashable
    rows: int
    pixels: int
    steps_done: int = 0

    @property
    def steps_total(self) -> int:
        """UNet calls in all; the second-order samplers need two for one step."""
        return len(self.timesteps)


class StableDiffusion:
    """One checkpoint on one device."""

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        sampler_config: Mapping[str, Any],
    ) -> None:
        self._unet = unet
        self._vae = vae
        self._samplers = Samplers(sampler_config)
        self._prompts = PromptEncoder(tokenizer, text_encoder)
        self._pixels_per_latent = 2 ** (len(vae.config.block_out_channels) - 1)
        self.device: torch.device = unet.device
        self.dtype: torch.dtype = unet.dtype
        self.parameters = sum(p.numel() for m in (unet, vae, text_encoder) for p in m.parameters())

    def prepare(self, spec: TextToImage, index: int) -> State:
        """Encode the prompts (cached) and draw image `index`'s initial noise from seed + index.

        Raises:
            InvalidSpec: this checkpoint cannot draw it; names the field.
        """
        seed = spec.seed + index
        sampler = self._samplers.make(spec.sampler, spec.sigmas, spec.num_inference_steps, seed)
        with on_device():
            embeddings, warnings = self._embeddings(spec)
            generator = torch.Generator().manual_seed(seed)
            latents = self._noise(spec, generator) * sampler.init_noise_sigma
            rows = len(embeddings)
            return State(
                spec=spec,
                sampler=sampler,
                timesteps=sampler.timesteps.unbind(),
                row_timesteps=self._row_timesteps(sampler, rows),
                latents=latents,
                embeddings=embeddings,
                step_arguments=_step_arguments(sampler, spec.eta, generator),
                warnings=warnings,
                bucket=(latents.shape, embeddings.shape[1:], self.dtype),
                rows=rows,
                pixels=spec.width * spec.height,
            )

    def predict(self, states: Sequence[State]) -> Sequence[torch.Tensor]:
        """One UNet call for states of one bucket: each one's (rows, channels, h, w), unguided.

        A guided ticket's two rows stand side by side. Changes no state: what a sampler notes
        down while it scales the input, it notes down again the same.

        Raises:
            OutOfMemory: the batch does not fit; smaller ones may.
            DeviceLost: the device is unusable by this process.
        """
        samples: list[torch.Tensor] = []
        with on_device():
            for state in states:
                now = state.timesteps[state.steps_done]
                sample = state.sampler.scale_model_input(state.latents, now)
                samples.extend([sample] * state.rows)
            noise: torch.Tensor = self._unet(
                torch.cat(samples),  # (R, channels, h, w)
                torch.cat([state.row_timesteps[state.steps_done] for state in states]),  # (R,)
                encoder_hidden_states=torch.cat([state.embeddings for state in states]),
                return_dict=False,
            )[0]
            return noise.split_with_sizes([state.rows for state in states])

    def advance(self, state: State, prediction: torch.Tensor) -> None:
        """Apply guidance and the ticket's own sampler step to its latents."""
        with on_device():
            state.latents = state.sampler.step(
                _guide(prediction, state.spec),
                state.timesteps[state.steps_done],
                state.latents,
                return_dict=False,
                **state.step_arguments,
            )[0]
        state.steps_done += 1

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def decode(self, states: Sequence[State]) -> Sequence[Picture]:
        """Latents of equal shape to pictures, in one autoencoder call. Changes no state."""
        with on_device():
            latents = torch.cat([state.latents for state in states])  # (B, channels, h, w)
            scaled = (latents / self._vae.config.scaling_factor).to(self._vae.dtype)
            images = self._vae.decode(scaled, return_dict=False)[0]  # (B, 3, H, W)
            return to_pictures(images)

    def peak_memory_bytes(self) -> int:
        """The most memory that was in use so far: of the GPU, or of the process on a CPU."""
        return peak_memory_bytes(self.device)

    def _embeddings(self, spec: TextToImage) -> tuple[torch.Tensor, tuple[Warn, ...]]:
        """Rows of (window, width). As in diffusers, `clip_skip` spares the negative prompt."""
        prompt = self._prompts.encode(spec.prompt, spec.clip_skip)
        if not spec.guided:
            return prompt.embedding, prompt.warnings("prompt")
        negative = self._prompts.encode(spec.negative_prompt)
        return (
            torch.cat([negative.embedding, prompt.embedding]),
            prompt.warnings("prompt") + negative.warnings("negative_prompt"),
        )

    def _noise(self, spec: TextToImage, generator: torch.Generator) -> torch.Tensor:
        """Drawn on the CPU in the model's precision, so that every worker draws the same."""
        shape = (
            1,
            self._unet.config.in_channels,
            spec.height // self._pixels_per_latent,
            spec.width // self._pixels_per_latent,
        )
        return torch.randn(shape, generator=generator, dtype=self.dtype).to(self.device)

    def _row_timesteps(self, sampler: Any, rows: int) -> tuple[torch.Tensor, ...]:
        # Copied to the device once: a copy per step would make the host wait at every step.
        timesteps: torch.Tensor = sampler.timesteps.to(torch.float32).to(self.device)
        return timesteps[:, None].expand(-1, rows).contiguous().unbind()


def _step_arguments(sampler: Any, eta: float, generator: torch.Generator) -> dict[str, Any]:
    """Those of eta and generator that this sampler's step knows."""
    known = inspect.signature(sampler.step).parameters
    offered = {"eta": eta, "generator": generator}
    return {name: value for name, value in offered.items() if name in known}


def _guide(prediction: torch.Tensor, spec: TextToImage) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): (2, C, h, w) to (1, C, h, w)."""
    if not spec.guided:
        return prediction
    unconditional, conditional = prediction.chunk(2)
    guided = unconditional + spec.guidance_scale * (conditional - unconditional)
    if spec.guidance_rescale:
        return _rescale(guided, conditional, spec.guidance_rescale)
    return guided


def _rescale(guided: torch.Tensor, conditional: torch.Tensor, share: float) -> torch.Tensor:
    """Restores the conditional's spread, by `share` (Lin et al. 2023, section 3.4)."""
    axes = list(range(1, guided.ndim))
    spread = conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return share * (guided * spread) + (1 - share) * guided
