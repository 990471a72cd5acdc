"""What diffusers' own pipelines draw for a spec: the truth our families are held to."""

from __future__ import annotations

from functools import cache, wraps
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from numpy.typing import NDArray
from PIL import Image

from server.pixels import Inputs
from server.spec import (
    AnySpec,
    DepthToImage,
    ImageToImage,
    Inpainting,
    Sampler,
    SdxlConditioning,
    Sigmas,
    Task,
    TextToImage,
    Upscale,
)
from server.stages import UPSCALED, Handover, Stage

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

PIPELINES = {
    ("sd", Task.TEXT_TO_IMAGE): "StableDiffusionPipeline",
    ("sd", Task.IMAGE_TO_IMAGE): "StableDiffusionImg2ImgPipeline",
    ("sd", Task.INPAINTING): "StableDiffusionInpaintPipeline",
    ("sd", Task.DEPTH_TO_IMAGE): "StableDiffusionDepth2ImgPipeline",
    ("sd", Task.UPSCALE): "StableDiffusionUpscalePipeline",
    ("sdxl", Task.TEXT_TO_IMAGE): "StableDiffusionXLPipeline",
    ("sdxl", Task.IMAGE_TO_IMAGE): "StableDiffusionXLImg2ImgPipeline",
    ("sdxl", Task.INPAINTING): "StableDiffusionXLInpaintPipeline",
}
UNRESCALED = frozenset(name for (family, _), name in PIPELINES.items() if family == "sd") - {
    PIPELINES["sd", Task.TEXT_TO_IMAGE]
}
"""Their calls have no `guidance_rescale`. Here they are given it where the others have it, by
diffusers' own function."""
NOTHING = Inputs()


def latents(
    folder: Path, drawn: AnySpec | Stage, inputs: Inputs = NOTHING, *, index: int = 0, **more: Any
) -> torch.Tensor:
    """The final latents of image `index`: (1, 4, h, w)."""
    result: torch.Tensor = _run(folder, drawn, inputs, index, output_type="latent", **more)
    return result


def picture(folder: Path, drawn: AnySpec | Stage, inputs: Inputs = NOTHING) -> NDArray[np.uint8]:
    """The first image: (height, width, 3)."""
    return np.asarray(_run(folder, drawn, inputs, 0, output_type="pil")[0])


@cache
def pipeline(folder: Path, task: Task = Task.TEXT_TO_IMAGE) -> tuple[Any, Any]:
    """The folder's pipeline for a task, and its own scheduler config."""
    whole, config = _whole(folder)
    kind = getattr(diffusers, PIPELINES[family(folder), task])
    pipe = whole if type(whole) is kind else kind.from_pipe(whole)
    pipe.set_progress_bar_config(disable=True)
    return pipe, config


def family(folder: Path) -> str:
    """Of the folder's checkpoint."""
    return "sdxl" if (folder / "text_encoder_2").exists() else "sd"


@cache
def _whole(folder: Path) -> tuple[Any, Any]:
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return pipe, pipe.scheduler.config


def _run(folder: Path, drawn: AnySpec | Stage, inputs: Inputs, index: int, **arguments: Any) -> Any:
    stage = drawn if isinstance(drawn, Stage) else Stage(spec=drawn)
    spec = stage.spec
    seed = spec.seed + index
    pipe, config = pipeline(folder, spec.task)
    pipe.scheduler = _scheduler(config, spec, seed)
    if "prompt_embeds" not in arguments:
        # SDXL's empty negative prompt is zeros where it is None, and the others take None as "".
        negative = spec.negative_prompt or None
        arguments |= {"prompt": spec.prompt, "negative_prompt": negative}
    arguments |= _of_the_task(spec, inputs) | _of_the_stage(stage, inputs)
    arguments |= {} if spec.sdxl is None else _of_sdxl(spec, spec.sdxl, pipe)
    arguments |= {
        "num_inference_steps": spec.num_inference_steps,
        "guidance_scale": spec.guidance_scale,
        "eta": spec.eta,
        "generator": torch.Generator("cpu").manual_seed(seed),
    }
    return _call(pipe, spec, arguments).images


def _call(pipe: Any, spec: AnySpec, arguments: dict[str, Any]) -> Any:
    """With guidance rescale, whether the pipeline's call knows it or not."""
    if type(pipe).__name__ not in UNRESCALED:
        return pipe(guidance_rescale=spec.guidance_rescale, **arguments)
    if spec.guided and spec.guidance_rescale:
        return _rescaled(pipe, spec.guidance_rescale, arguments)
    return pipe(**arguments)


def _rescaled(pipe: Any, share: float, arguments: dict[str, Any]) -> Any:
    conditional: list[torch.Tensor] = []
    hook = pipe.unet.register_forward_hook(
        lambda _, __, output: conditional.append(output[0].chunk(2)[1])
    )
    step = pipe.scheduler.step

    @wraps(step)
    def rescaling(noise: torch.Tensor, *args: Any, **more: Any) -> Any:
        return step(rescale_noise_cfg(noise, conditional[-1], share), *args, **more)

    pipe.scheduler.step = rescaling
    try:
        return pipe(**arguments)
    finally:
        hook.remove()


def _of_the_task(spec: AnySpec, inputs: Inputs) -> dict[str, Any]:
    """Pictures of the spec's size: only inpainting's pipelines resize."""
    size = {"width": spec.width, "height": spec.height}
    match spec:
        case TextToImage():
            return size
        case ImageToImage():
            return {"image": _picture(inputs, **size), "strength": spec.strength}
        case Inpainting():
            assert inputs.image is not None
            assert inputs.mask is not None
            return size | {
                "image": Image.fromarray(inputs.image),
                "mask_image": Image.fromarray(inputs.mask),
                "strength": spec.strength,
                "padding_mask_crop": spec.padding_mask_crop,
            }
        case DepthToImage():
            depth = None if inputs.depth is None else torch.from_numpy(inputs.depth)[None]
            picture = _picture(inputs, **size)
            return {"image": picture, "depth_map": depth, "strength": spec.strength}
        case Upscale():
            picture = _picture(inputs, spec.width // UPSCALED, spec.height // UPSCALED)
            return {"image": picture, "noise_level": spec.noise_level}


def _picture(inputs: Inputs, width: int, height: int) -> Image.Image | None:
    if inputs.image is None:
        return None
    return Image.fromarray(inputs.image).resize((width, height), Image.Resampling.LANCZOS)


def _of_the_stage(stage: Stage, inputs: Inputs) -> dict[str, Any]:
    """The share of an ensemble of experts."""
    arguments: dict[str, Any] = {}
    if stage.end < 1:
        arguments["denoising_end"] = stage.end
    if stage.begin:
        arguments["denoising_start"] = stage.begin
    if stage.takes is Handover.LATENTS:
        assert inputs.latents is not None
        arguments["image"] = torch.from_numpy(inputs.latents)[None]
    return arguments


def _of_sdxl(spec: AnySpec, sdxl: SdxlConditioning, pipe: Any) -> dict[str, Any]:
    """Sizes as height and width. A negative prompt for the second encoder alone is one, too."""
    told = sdxl.model_dump().items()
    fields = {name: value[::-1] if isinstance(value, tuple) else value for name, value in told}
    fields["clip_skip"] = spec.clip_skip
    if sdxl.negative_prompt_2:
        fields["negative_prompt"] = spec.negative_prompt
    if not getattr(pipe.config, "requires_aesthetics_score", False):
        del fields["aesthetic_score"], fields["negative_aesthetic_score"]
    return fields


def _scheduler(config: Any, spec: AnySpec, seed: int) -> Any:
    name, own = SCHEDULERS[spec.sampler]
    own = dict(own)
    if spec.sigmas is not Sigmas.DEFAULT:
        own[f"use_{spec.sigmas}_sigmas"] = True
    if spec.sampler is Sampler.DPMPP_SDE:
        own["noise_sampler_seed"] = seed
    return getattr(diffusers, name).from_config(config, **own)
