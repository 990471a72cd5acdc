"""The words a request chooses from: tasks, samplers and their kin, prompts, formats."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """What is asked for, named as the diffusers pipelines are."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    INPAINTING = "inpainting"
    DEPTH_TO_IMAGE = "depth-to-image"
    UPSCALE = "upscale"


class Sampler(StrEnum):
    """The diffusion noise schedulers under their usual names."""

    DDIM = "ddim"
    DDPM = "ddpm"
    PNDM = "pndm"
    LMS = "lms"
    EULER = "euler"
    EULER_A = "euler_a"
    HEUN = "heun"
    DPM2 = "dpm2"
    DPM2_A = "dpm2_a"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_SDE = "dpmpp_2m_sde"
    DPMPP_SDE = "dpmpp_sde"
    DPMPP_2S = "dpmpp_2s"
    DPMPP_3M_SDE = "dpmpp_3m_sde"
    UNIPC = "unipc"
    DEIS = "deis"
    LCM = "lcm"
    TCD = "tcd"
    IPNDM = "ipndm"
    SA_SOLVER = "sa_solver"


class Sigmas(StrEnum):
    """How the noise levels of the steps are spaced."""

    DEFAULT = "default"
    KARRAS = "karras"
    EXPONENTIAL = "exponential"
    BETA = "beta"


SPACED = frozenset(
    {
        Sampler.LMS,
        Sampler.EULER,
        Sampler.HEUN,
        Sampler.DPM2,
        Sampler.DPM2_A,
        Sampler.DPMPP_2M,
        Sampler.DPMPP_2M_SDE,
        Sampler.DPMPP_SDE,
        Sampler.DPMPP_2S,
        Sampler.DPMPP_3M_SDE,
        Sampler.UNIPC,
        Sampler.DEIS,
        Sampler.SA_SOLVER,
    }
)
"""The samplers whose diffusers class can space its sigmas other than by default."""

TAKES_ETA = frozenset({Sampler.DDIM, Sampler.TCD})
"""The samplers whose diffusers class has an eta; the others ignore it."""


TWO_CALLS = frozenset({Sampler.HEUN, Sampler.DPM2, Sampler.DPM2_A, Sampler.DPMPP_SDE})
"""Samplers of the second order, with two UNet calls for each step but the last."""

FROM_NOISE_ONLY = frozenset({Sampler.IPNDM})
"""Samplers whose diffusers class cannot add noise to a picture, nor share a schedule."""

DISTILLED = frozenset({Sampler.LCM, Sampler.TCD})
"""Samplers whose steps are picked from the short schedule that a model was distilled with."""

DISTILLED_STEPS = 50
"""The length of that schedule in diffusers' defaults, which no known checkpoint changes."""


class PromptSyntax(StrEnum):
    """How a prompt is read."""

    PLAIN = "plain"
    A1111 = "a1111"


class LongPrompts(StrEnum):
    """What becomes of a prompt that is longer than the text encoder's window."""

    CHUNK = "chunk"
    TRUNCATE = "truncate"
    REJECT = "reject"


class Quantization(StrEnum):
    """In how few bits the weights of a UNet's linear layers are kept."""

    NONE = "none"
    INT8 = "int8"
    FP8 = "fp8"


class Enlarged(StrEnum):
    """What hires fix makes larger between its two drawings."""

    LATENTS = "latents"
    PICTURE = "picture"


class OutputFormat(StrEnum):
    """The encodings an image can be returned in."""

    PNG = "png"
    WEBP = "webp"
    JPEG = "jpeg"

    @property
    def media_type(self) -> str:
        """The MIME type of this format."""
        return f"image/{self.value}"
