"""What a picture says of itself: A1111's infotext, and the whole spec as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

from server.spec import WITHOUT_KEYS, AnySpec, Enlarged, Sampler, Sigmas, Spec

SAMPLER_NAMES = {
    Sampler.DDIM: "DDIM",
    Sampler.DDPM: "DDPM",
    Sampler.PNDM: "PLMS",
    Sampler.LMS: "LMS",
    Sampler.EULER: "Euler",
    Sampler.EULER_A: "Euler a",
    Sampler.HEUN: "Heun",
    Sampler.DPM2: "DPM2",
    Sampler.DPM2_A: "DPM2 a",
    Sampler.DPMPP_2M: "DPM++ 2M",
    Sampler.DPMPP_2M_SDE: "DPM++ 2M SDE",
    Sampler.DPMPP_SDE: "DPM++ SDE",
    Sampler.DPMPP_2S: "DPM++ 2S",
    Sampler.DPMPP_3M_SDE: "DPM++ 3M SDE",
    Sampler.UNIPC: "UniPC",
    Sampler.DEIS: "DEIS",
    Sampler.LCM: "LCM",
    Sampler.TCD: "TCD",
    Sampler.IPNDM: "IPNDM",
    Sampler.SA_SOLVER: "SA Solver",
}


UPSCALER_NAMES = {Enlarged.LATENTS: "Latent", Enlarged.PICTURE: "Lanczos"}

Settings = Mapping[str, str | int | None]
"""A line of settings; what is None is left out."""


def texts(spec: AnySpec, index: int, version: str) -> dict[str, str]:
    """Texts of image `index`: `parameters` for A1111's readers, `darkroom` to draw it again."""
    recipe = spec.alone(index)
    told = recipe.model_dump(mode="json", exclude=dict(WITHOUT_KEYS))
    return {
        "parameters": infotext(recipe, version),
        "darkroom": json.dumps({"version": version, "spec": told}, ensure_ascii=False),
    }


def infotext(spec: Spec, version: str) -> str:
    """Prompt, negative prompt, then one line of settings, as A1111 writes them."""
    settings = {
        "Steps": spec.num_inference_steps,
        "Sampler": SAMPLER_NAMES[spec.sampler],
        "Schedule type": None if spec.sigmas is Sigmas.DEFAULT else spec.sigmas.value.title(),
        "CFG scale": f"{spec.guidance_scale:g}",
        "Seed": spec.seed,
        "Size": f"{spec.width}x{spec.height}",
        "Model": spec.checkpoint,
        "VAE": spec.vae or None,
        **_of_task(spec),
        "Clip skip": spec.clip_skip + 1 if spec.clip_skip else None,
        "Eta": f"{spec.eta:g}" if spec.eta else None,
        "CFG Rescale": f"{spec.guidance_rescale:g}" if spec.guidance_rescale else None,
        **_of_hires(spec),
        **_of_seconds(spec),
        "Version": f"darkroom {version}",
    }
    lines = [_with_loras(spec)]
    if spec.negative_prompt:
        lines.append(f"Negative prompt: {spec.negative_prompt}")
    lines.append(
        ", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None)
    )
    return "\n".join(lines)


def _with_loras(spec: Spec) -> str:
    """A1111's readers look for adapters in the prompt."""
    tags = (f"<lora:{lora.name}:{lora.scale:g}>" for lora in spec.loras)
    return " ".join([spec.prompt, *(tag for tag in tags if tag not in spec.prompt)])


def _of_task(spec: Spec) -> Settings:
    strength: float | None = getattr(spec, "strength", None)
    if spec.hires is not None:  # as A1111 has it: there is one field for both
        strength = spec.hires.strength
    cropped: int | None = getattr(spec, "padding_mask_crop", None)
    return {
        "Denoising strength": None if strength is None else f"{strength:g}",
        "Inpaint area": None if cropped is None else "Only masked",
        "Masked area padding": cropped,
        "Noise level": getattr(spec, "noise_level", None),
    }


def _of_hires(spec: Spec) -> Settings:
    hires = spec.hires
    if hires is None:
        return {}
    scale = hires.width / spec.width
    even = scale * spec.height == hires.height
    return {
        "Hires upscale": f"{scale:g}" if even else None,
        "Hires resize": None if even else f"{hires.width}x{hires.height}",
        "Hires steps": hires.num_inference_steps,
        "Hires upscaler": UPSCALER_NAMES[hires.enlarged],
    }


def _of_seconds(spec: Spec) -> Settings:
    """A refiner that draws over the finished picture, and an upscaler that draws, have no names in
    A1111."""
    told: dict[str, str | int | None] = {}
    if spec.refiner is not None:
        told["Refiner"] = spec.refiner.checkpoint
        told["Refiner switch at"] = f"{spec.refiner.switch_at:g}"
        if spec.refiner.switch_at == 1:
            told["Refiner strength"] = f"{spec.refiner.strength:g}"
    if spec.upscaler is not None:
        told["Upscaler"] = spec.upscaler.checkpoint
        told["Upscaler noise level"] = spec.upscaler.noise_level
    return told
