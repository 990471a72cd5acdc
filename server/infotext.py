"""What a picture says of itself: A1111's infotext, and the whole spec as JSON."""

from __future__ import annotations

import json

from server.spec import Sampler, Sigmas, TextToImage

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


def texts(spec: TextToImage, index: int, version: str) -> dict[str, str]:
    """Texts of image `index`: `parameters` for A1111's readers, `darkroom` to draw it again."""
    recipe = spec.model_copy(update={"seed": spec.seed + index, "num_images": 1})
    return {
        "parameters": infotext(recipe, version),
        "darkroom": json.dumps(
            {"version": version, "spec": recipe.model_dump(mode="json")}, ensure_ascii=False
        ),
    }


def infotext(spec: TextToImage, version: str) -> str:
    """Prompt, negative prompt, then one line of settings, as A1111 writes them."""
    settings = {
        "Steps": spec.num_inference_steps,
        "Sampler": SAMPLER_NAMES[spec.sampler],
        "Schedule type": None if spec.sigmas is Sigmas.DEFAULT else spec.sigmas.value.title(),
        "CFG scale": f"{spec.guidance_scale:g}",
        "Seed": spec.seed,
        "Size": f"{spec.width}x{spec.height}",
        "Model": spec.checkpoint,
        "Clip skip": spec.clip_skip + 1 if spec.clip_skip else None,
        "Eta": f"{spec.eta:g}" if spec.eta else None,
        "CFG Rescale": f"{spec.guidance_rescale:g}" if spec.guidance_rescale else None,
        "Version": f"darkroom {version}",
    }
    lines = [spec.prompt]
    if spec.negative_prompt:
        lines.append(f"Negative prompt: {spec.negative_prompt}")
    lines.append(
        ", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None)
    )
    return "\n".join(lines)
