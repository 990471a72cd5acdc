"""What diffusers' own StableDiffusionPipeline draws for a spec: the truth our family is held to."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from server.spec import Sampler, Sigmas, TextToImage

# Written down a second time on purpose: the table in server.models.samplers must not be its own
# judge.
SCHEDULERS: dict[Sampler, tuple[str, dict[str, Any]]] = {
    Sampler.DDIM: ("DDIMScheduler", {}),
    Sampler.DDPM: ("DDPMScheduler", {}),
    Sampler.PNDM: ("PNDMScheduler", {"skip_prk_steps": True}),
    Sampler.LMS: ("LMSDiscreteScheduler", {}),
    Sampler.EULER: ("EulerDiscreteScheduler", {}),
    Sampler.EULER_A: ("EulerAncestralDiscreteScheduler", {}),
    Sampler.HEUN: ("HeunDiscreteScheduler", {}),
    Sampler.DPM2: ("KDPM2DiscreteScheduler", {}),
    Sampler.DPM2_A: ("KDPM2AncestralDiscreteScheduler", {}),
    Sampler.DPMPP_2M: ("DPMSolverMultistepScheduler", {}),
    Sampler.DPMPP_2M_SDE: ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    Sampler.DPMPP_SDE: ("DPMSolverSDEScheduler", {}),
    Sampler.DPMPP_2S: ("DPMSolverSinglestepScheduler", {}),
    Sampler.DPMPP_3M_SDE: (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
    ),
    Sampler.UNIPC: ("UniPCMultistepScheduler", {}),
    Sampler.DEIS: ("DEISMultistepScheduler", {}),
    Sampler.LCM: ("LCMScheduler", {}),
    Sampler.TCD: ("TCDScheduler", {}),
    Sampler.IPNDM: ("IPNDMScheduler", {}),
    Sampler.SA_SOLVER: ("SASolverScheduler", {"algorithm_type": "data_prediction"}),
}


def latents(folder: Path, spec: TextToImage, index: int = 0, **arguments: Any) -> torch.Tensor:
    """The final latents of image `index`: (1, 4, height / 8, width / 8)."""
    result: torch.Tensor = _run(folder, spec, index, output_type="latent", **arguments)
    return result


def picture(folder: Path, spec: TextToImage) -> NDArray[np.uint8]:
    """The first image: (height, width, 3)."""
    return np.asarray(_run(folder, spec, 0, output_type="pil")[0])


@cache
def pipeline(folder: Path) -> tuple[Any, Any]:
    """The folder's pipeline and its own scheduler config."""
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe, pipe.scheduler.config


def _run(folder: Path, spec: TextToImage, index: int, **arguments: Any) -> Any:
    seed = spec.seed + index
    pipe, config = pipeline(folder)
    pipe.scheduler = _scheduler(config, spec, seed)
    if "prompt_embeds" not in arguments:
        arguments |= {"prompt": spec.prompt, "negative_prompt": spec.negative_prompt}
    return pipe(
        height=spec.height,
        width=spec.width,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        guidance_rescale=spec.guidance_rescale,
        eta=spec.eta,
        generator=torch.Generator("cpu").manual_seed(seed),
        **arguments,
    ).images


def _scheduler(config: Any, spec: TextToImage, seed: int) -> Any:
    name, own = SCHEDULERS[spec.sampler]
    own = dict(own)
    if spec.sigmas is not Sigmas.DEFAULT:
        own[f"use_{spec.sigmas}_sigmas"] = True
    if spec.sampler is Sampler.DPMPP_SDE:
        own["noise_sampler_seed"] = seed
    return getattr(diffusers, name).from_config(config, **own)
