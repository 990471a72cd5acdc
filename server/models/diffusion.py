"""Latent diffusion cut at the step: the engine's Denoiser for every family, by shape.

What a diffusers pipeline does in one call is done here ticket by ticket: each owns its sampler,
its seeded CPU generator and its latents, and only the UNet call is shared. Families differ in
their conditioner, tasks in their canvas. Knows nothing of the queue, nor of which tickets are
batched and when.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from server.errors import NotFinite
from server.models.adapters import Adapters
from server.models.autoencoder import TILE_ABOVE, Autoencoder
from server.models.canvas import Canvases, Start
from server.models.conditioning import Conditioner, unet_arguments
from server.models.depth import DepthReader
from server.models.device import Pace, on_device, peak_memory_bytes
from server.models.distilled import GuidanceReader
from server.models.glimpses import expected, planned, taken
from server.models.parts import Parts
from server.models.pictures import NO_LATENTS, Latents, Picture, to_latents, to_pictures
from server.models.probe import EVERY, Probe
from server.models.recurrence import Recurrence, Recurrences
from server.models.reuse import Reuse
from server.models.safety import SafetyReader
from server.models.samplers import Samplers
from server.models.schedule import begin
from server.models.state import Kept, State
from server.models.turn import Prediction, Turn, unet_input
from server.models.upkeep import Upkeep
from server.pixels import Inputs
from server.spec import Sampler, Spec
from server.stages import Handover, Stage

COST_OF_A_LATENT = 64
"""Pixels that a latent counts for, in every family: the UNet's cost is by the latents."""


class LatentDiffusion:
    """One checkpoint on one device.

    Args:
        adapters: what specs may name besides; without it, one that names something is refused.
    """

    def __init__(
        self, parts: Parts, conditioner: Conditioner, adapters: Adapters | None = None
    ) -> None:
        self.compiled, self._graphs = parts.compiled, parts.graphs
        self._adapters = adapters or Adapters(parts, None)
        self._unet = parts.unet
        self._reuse = Reuse(parts.unet)
        self._conditioner = conditioner
        self._guidance = GuidanceReader(parts)
        self._vae = Autoencoder(parts.vae, 0 if parts.always_tiled else TILE_ABOVE)
        self._previews = None if parts.preview_vae is None else Autoencoder(parts.preview_vae)
        self._samplers = Samplers(parts.sampler_config)
        self._recurrences = Recurrences(parts.dtype, parts.device)
        reads_depth = parts.unet.config.in_channels == self._vae.channels + 1
        depth = DepthReader(parts.depth) if reads_depth else None
        self._canvases = Canvases(parts.unet, parts.low_res_sampler_config, depth)
        self._safety = SafetyReader(parts.safety)
        self.device, self._pace = parts.device, Pace(parts.device)
        self.dtype = parts.dtype
        self.parameters = parts.parameters
        self.upkeep = Upkeep(parts, conditioner, self._adapters)

    def prepare(self, stage: Stage, index: int, inputs: Inputs) -> State:
        """Encode the prompts (cached) and what image `index` starts from; draw its noise from its
        own seed.

        Raises:
            InvalidSpec: this checkpoint cannot draw it; names the field.
        """
        asked = stage.spec.alone(index)
        spec = self._guidance.unmixed(asked)
        if spec.cache_interval > 1:
            self._reuse.check()
        stage = stage.model_copy(update={"spec": spec})
        sampler = self._samplers.make(
            spec.sampler, spec.sigmas, spec.num_inference_steps, spec.seed
        )
        timesteps = begin(sampler, stage)
        shown = planned(sampler, timesteps, spec.previews)
        blend, vae = self._adapters.blend(spec), self._adapters.autoencoder(spec, self._vae)
        with on_device():
            with self._adapters.reading(blend):
                read = self._conditioner.encode(spec, blend.readers)
            conditioning = self._guidance.told(read, asked)
            generator = torch.Generator().manual_seed(spec.seed)
            first = timesteps[:1] if len(timesteps) else None
            canvas = self._canvases.make(stage, inputs, Start(sampler, first, generator), vae)
            latents, gives_latents = canvas.latents, stage.gives is Handover.LATENTS
            arguments = _step_arguments(sampler, spec.eta, generator)
            extra = 0 if canvas.extra is None else canvas.extra.shape[1]
            return State(
                spec=spec,
                sampler=sampler,
                timesteps=timesteps.unbind(),
                row_timesteps=self._row_timesteps(timesteps, conditioning.rows),
                canvas=canvas,
                conditioning=conditioning,
                step_arguments=arguments,
                recurrence=self._recurrence(sampler, timesteps, arguments, spec),
                guidance=torch.full((1, 1, 1, 1), spec.guidance_scale, device=self.device),
                latents=latents,
                blend=blend,
                autoencoder=vae,
                alike=(latents.shape, extra, conditioning.shape, self.dtype, blend.unet),
                decode_bucket=(latents.shape, gives_latents, vae),
                pixels=latents.shape[-2] * latents.shape[-1] * COST_OF_A_LATENT,
                guided_calls=spec.guided_calls(len(timesteps)),
                gives_latents=gives_latents,
                shown_after=shown,
            )

    def make_room(self) -> None:
        """Let go of what is kept on the device only to be quicker: prompts, adapters, and memory
        that its allocator holds back."""
        self._conditioner.forget()
        self._adapters.forget()
        with contextlib.nullcontext() if self._graphs is None else self._graphs.forgotten():
            if self.device.type == "cuda":
                with on_device():
                    torch.cuda.empty_cache()

    def predict(self, states: Sequence[State]) -> Sequence[Prediction]:
        """One UNet call for states of one bucket: each one's share of it.

        A guided ticket's two rows stand side by side. Changes no state: what a sampler notes
        down while it scales the input, it notes down again the same.

        Raises:
            OutOfMemory: the batch does not fit; smaller ones may.
            DeviceLost: the device is unusable by this process.
        """
        with on_device():
            self._pace.keep()
            self._adapters.wear(states[0].blend)
            turn = Turn(states, *self._called(states))
            return [Prediction(turn, number) for number in range(len(states))]

    def _called(self, states: Sequence[State]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the UNet predicts, a row or two for each; and what it has found by the way, if any
        of them will use that again."""
        arguments: dict[str, Any] = {
            "sample": unet_input(states),  # (R, channels, h, w)
            "timestep": torch.cat([state.row_timesteps[state.steps_done] for state in states]),
            "class_labels": _class_labels(states),
            **unet_arguments([state.conditioning for state in states]),
        }
        if states[0].shallow:
            return self._reuse.shallow(_found(states), **arguments), None
        if any(state.finds for state in states):
            return self._reuse.whole(**arguments)
        # A graph is recorded without a LoRA.
        unet = self._unet if self._graphs is None or states[0].blend.unet else self._graphs
        return unet(return_dict=False, **arguments)[0], None

    def advance(self, state: State, prediction: Prediction) -> None:
        """Apply guidance and the sampler's step to its latents. What that is for each ticket of the
        call is worked out for all of them when the first is advanced.

        Raises:
            NotFinite: they have been NaN or infinite for a few steps, at most.
        """
        with on_device():
            stepped = prediction.stepped()
            glimpse, latents = taken(state, stepped.guided), stepped.latents
            if latents is None:
                latents = _by_its_own_sampler(state, stepped.guided)
            if state.canvas.kept is not None:
                latents = _restored(latents, state, state.canvas.kept)
            if state.steps_done % EVERY == 0:
                state.probe = Probe(latents)
            if state.probe is not None and state.probe.failed:
                raise NotFinite(NO_LATENTS)
        if state.recurrence is not None:
            past = ((state.latents, stepped.guided), *state.past)
            state.past = past[: state.recurrence.reach]
        state.latents, state.glimpse = latents, glimpse
        if stepped.found is not None:
            state.found = stepped.found
        state.count_step()

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def decode(self, states: Sequence[State]) -> Sequence[Picture] | Sequence[Latents]:
        """Latents of one `decode_bucket` to pictures, in one autoencoder call, or as they are
        where the stage gives latents. Changes no state."""
        with on_device():
            latents = torch.cat([state.latents for state in states])  # (B, channels, h, w)
            if states[0].gives_latents:
                return to_latents(latents)
            images = states[0].autoencoder.decode(latents)  # (B, 3, height, width)
            return to_pictures(images, [state.canvas.finish for state in states])

    def decode_again(self, state: State) -> Picture | None:
        """A picture that came out as none, alone and with its autoencoder in float32. None where
        that was in float32 already.

        Raises:
            NotFinite: it is the latents that are at fault, which no autoencoder mends.
            OutOfMemory: it does not fit beside what is on the device.
        """
        with on_device():
            if not state.latents.isfinite().all().item():
                raise NotFinite(NO_LATENTS)
            if state.autoencoder.dtype is torch.float32:
                return None
            images = state.autoencoder.decode_precisely(state.latents)  # (1, 3, height, width)
            return to_pictures(images, [state.canvas.finish])[0]

    def preview(self, states: Sequence[State]) -> Sequence[Picture]:
        """What these are expected to become, of one `decode_bucket`, in one autoencoder call;
        each has just taken a step after which it is shown. Changes no state."""
        with on_device():
            latents = torch.cat([expected(state) for state in states])  # (B, channels, h, w)
            autoencoder = self._previews or states[0].autoencoder
            images = autoencoder.decode(latents)  # (B, 3, height, width)
            return to_pictures(images, [state.canvas.finish for state in states])

    def unsafe(self, pixels: NDArray[np.uint8]) -> bool | None:
        """Whether the checkpoint's safety checker flags this picture of (height, width, 3); None
        where it has none."""
        with on_device():
            return self._safety.flags(pixels)

    def peak_memory_bytes(self) -> int:
        """The most memory that was in use so far: of the GPU, or of the process on a CPU."""
        return peak_memory_bytes(self.device)

    def _recurrence(
        self, sampler: Any, timesteps: torch.Tensor, arguments: dict[str, Any], spec: Spec
    ) -> Recurrence | None:
        """None where its own sampler has to step."""
        if spec.sampler is Sampler.DPMPP_SDE:  # it has a source of noise of its own
            return None
        eta = arguments.get("eta")
        asked = (spec.sampler, spec.sigmas, spec.num_inference_steps, eta)
        return self._recurrences.of(sampler, timesteps, arguments, *asked)

    def _row_timesteps(self, timesteps: torch.Tensor, rows: int) -> tuple[torch.Tensor, ...]:
        # Copied to the device once: a copy per step would make the host wait at every step.
        on_host = timesteps.to(torch.float32)
        return on_host.to(self.device)[:, None].expand(-1, rows).contiguous().unbind()


def _class_labels(states: Sequence[State]) -> torch.Tensor | None:
    """An upscaler is told how much noise each input was given: (R,)."""
    labels = [(state.canvas.class_label, state.rows) for state in states]
    told = [label.expand(rows) for label, rows in labels if label is not None]
    return torch.cat(told) if told else None


def _found(states: Sequence[State]) -> torch.Tensor:
    """What each has found when it was called whole; as many rows of it as there are now."""
    return torch.cat([state.found[-state.rows :] for state in states if state.found is not None])


def _by_its_own_sampler(state: State, guided: torch.Tensor) -> torch.Tensor:
    now = state.timesteps[state.steps_done]
    stepped = state.sampler.step(
        guided, now, state.latents, return_dict=False, **state.step_arguments
    )
    latents: torch.Tensor = stepped[0]
    return latents


def _restored(latents: torch.Tensor, state: State, kept: Kept) -> torch.Tensor:
    """What is not drawn again, as it would be at the next timestep; at the end as it was sent."""
    sent = kept.latents
    if state.steps_done + 1 < state.steps_total:
        if state.recurrence is None:
            following = state.timesteps[state.steps_done + 1]
            sent = state.sampler.add_noise(sent, kept.noise, following[None])
        else:
            picture, noise = state.recurrence.keeps[state.steps_done].unbind()
            sent = picture * sent + noise * kept.noise
    return ((1 - kept.mask) * sent + kept.mask * latents).to(latents.dtype)


def _step_arguments(sampler: Any, eta: float, generator: torch.Generator) -> dict[str, Any]:
    """Those of eta and generator that this sampler's step knows."""
    known = inspect.signature(sampler.step).parameters
    offered = {"eta": eta, "generator": generator}
    return {name: value for name, value in offered.items() if name in known}
