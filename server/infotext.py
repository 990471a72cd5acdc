"""What a picture says of itself: A1111's infotext, and the manifest that draws it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from server.recipe import MANIFEST, PARAMETERS, UNKNOWN, Looks, Manifest, quoted
from server.spec import (
    AnySpec,
    Enlarged,
    PromptSyntax,
    Quantization,
    Sampler,
    Sigmas,
    Spec,
    Task,
)

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


MOST_TIMES = 8
"""What hires fix may be asked for as a factor."""

UPSCALER_NAMES = {Enlarged.LATENTS: "Latent", Enlarged.PICTURE: "Lanczos"}

UNNAMED_TASKS = (Task.INPAINTING, Task.DEPTH_TO_IMAGE, Task.UPSCALE)
"""What A1111's own settings do not tell from the others."""

AXIS_NAMES = {
    "guidance_scale": "CFG Scale",
    "num_inference_steps": "Steps",
    "strength": "Denoising",
    "sampler": "Sampler",
    "seed": "Seed",
}
"""What A1111's X/Y/Z plot calls them."""

READ_BY_A1111 = ("(", ")", "[", "]", "\\", "BREAK")
"""What a prompt without syntax may hold, and A1111 would not take as it is."""

Settings = Mapping[str, str | int | None]
"""A line of settings; what is None is left out."""


def texts(
    spec: AnySpec,
    index: int,
    version: str,
    looks: Looks = UNKNOWN,
    quantization: Quantization = Quantization.NONE,
) -> dict[str, str]:
    """Texts of image `index`: `parameters` for A1111's readers, `darkroom` to draw it again."""
    return _texts(spec.alone(index), version, looks, quantization)


def texts_of_grid(
    spec: AnySpec,
    version: str,
    looks: Looks = UNKNOWN,
    quantization: Quantization = Quantization.NONE,
) -> dict[str, str]:
    """The same of the overview of a sweep, which is no picture of one recipe."""
    return _texts(spec, version, looks, quantization)


def _texts(spec: AnySpec, version: str, looks: Looks, quantization: Quantization) -> dict[str, str]:
    told = looks._asdict()
    manifest = Manifest(version=version, spec=spec, quantization=quantization, **told)
    return {PARAMETERS: infotext(spec, version), MANIFEST: manifest.text()}


def infotext(spec: Spec, version: str) -> str:
    """Prompt, negative prompt, then one line of settings, as A1111 writes them."""
    settings = {
        "Steps": spec.num_inference_steps,
        "Sampler": SAMPLER_NAMES[spec.sampler],
        "Schedule type": None if spec.sigmas is Sigmas.DEFAULT else spec.sigmas.value.title(),
        "CFG scale": _number(spec.guidance_scale),
        "Seed": spec.seed,
        "Size": f"{spec.width}x{spec.height}",
        "Model": spec.checkpoint,
        "VAE": spec.vae or None,
        **_of_task(spec),
        "Clip skip": spec.clip_skip + 1 if spec.clip_skip else None,
        "Eta": _number(spec.eta) if spec.eta else None,
        "CFG Rescale": _number(spec.guidance_rescale) if spec.guidance_rescale else None,
        "Guidance end": _number(spec.guidance_end) if spec.guidance_end < 1 else None,
        "Cache interval": spec.cache_interval if spec.cache_interval > 1 else None,
        "Emphasis": _emphasis(spec),
        **_of_hires(spec),
        **_of_seconds(spec),
        **_of_sweep(spec),
        "Version": f"darkroom {version}",
    }
    lines = [_with_loras(spec)]
    if spec.negative_prompt:
        lines.append(f"Negative prompt: {spec.negative_prompt}")
    told = ((name, str(value)) for name, value in settings.items() if value is not None)
    lines.append(", ".join(f"{name}: {quoted(value)}" for name, value in told))
    return "\n".join(lines)


def _number(value: float) -> str:
    """Short where that loses nothing."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _emphasis(spec: Spec) -> str | None:
    """As A1111 says how prompts are read. Its default is not ours, so that one is told where it
    was taken, and the other where it matters."""
    if spec.prompt_syntax is PromptSyntax.A1111:
        return "Original"
    prompts = spec.prompt + spec.negative_prompt
    return "None" if any(mark in prompts for mark in READ_BY_A1111) else None


def _with_loras(spec: Spec) -> str:
    """A1111's readers look for adapters in the prompt."""
    tags = (f"<lora:{lora.name}:{_number(lora.scale)}>" for lora in spec.loras)
    return " ".join([spec.prompt, *(tag for tag in tags if tag not in spec.prompt)])


def _of_task(spec: Spec) -> Settings:
    strength: float | None = getattr(spec, "strength", None)
    if spec.hires is not None:  # as A1111 has it: there is one field for both
        strength = spec.hires.strength
    cropped: int | None = getattr(spec, "padding_mask_crop", None)
    return {
        "Task": spec.task.value if spec.task in UNNAMED_TASKS else None,
        "Denoising strength": None if strength is None else _number(strength),
        "Inpaint area": None if cropped is None else "Only masked",
        "Masked area padding": cropped,
        "Noise level": getattr(spec, "noise_level", None),
    }


def _of_hires(spec: Spec) -> Settings:
    hires = spec.hires
    if hires is None:
        return {}
    scale = f"{hires.width / spec.width:g}"
    times = Fraction(scale)
    even = spec.width * times == hires.width and spec.height * times == hires.height
    even = even and 1 <= times <= MOST_TIMES
    return {
        "Hires upscale": scale if even else None,
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
        told["Refiner switch at"] = _number(spec.refiner.switch_at)
        if spec.refiner.switch_at == 1:
            told["Refiner strength"] = _number(spec.refiner.strength)
    if spec.upscaler is not None:
        told["Upscaler"] = spec.upscaler.checkpoint
        told["Upscaler noise level"] = spec.upscaler.noise_level
    return told


def _of_sweep(spec: Spec) -> Settings:
    """The axes of a grid as A1111's X/Y/Z plot tells them: columns, then rows. The other settings
    are those of its first picture."""
    if spec.sweep is None:
        return {}
    told: dict[str, str] = {"Script": "X/Y/Z plot"}
    for letter, axis in zip("XY", reversed(spec.sweep.axes), strict=False):
        told[f"{letter} Type"] = AXIS_NAMES[axis.field]
        told[f"{letter} Values"] = ", ".join(_values(axis.field, axis.values))
    return told


def _values(field: str, values: Sequence[float | int | str]) -> list[str]:
    if field == "sampler":
        return [SAMPLER_NAMES[Sampler(str(value))] for value in values]
    return [value if isinstance(value, str) else _number(value) for value in values]
