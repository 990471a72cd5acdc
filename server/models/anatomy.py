"""What a checkpoint consists of, and whether that is what its card says. Loads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from server.catalog import Card, Safety
from server.errors import CheckpointError
from server.models.sources import read_json, refusing
from server.spec import Task

PIPELINES = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionImg2ImgPipeline": "sd",
    "StableDiffusionInpaintPipeline": "sd",
    "StableDiffusionDepth2ImgPipeline": "sd",
    "StableDiffusionUpscalePipeline": "sd",
    "LatentConsistencyModelPipeline": "sd",
    "LatentConsistencyModelImg2ImgPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl",
    "StableDiffusionXLInpaintPipeline": "sdxl",
}
"""The family of each class that a model_index.json may name."""

CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
    "tokenizer": "CLIPTokenizer",
    "tokenizer_2": "CLIPTokenizer",
    "low_res_scheduler": "DDPMScheduler",
}

LATENTS, DEPTH, UPSCALER, EDITING, INPAINTING = 4, 5, 7, 8, 9
"""Input channels of UNets: plain latents, and with what else is stacked on them."""

CHANNELS = {
    LATENTS: "an ordinary checkpoint",
    DEPTH: "a depth-to-image checkpoint",
    UPSCALER: "an upscaler",
    EDITING: "an instruction-editing checkpoint",
    INPAINTING: "an inpainting checkpoint",
}
DRAWS = {
    ("sd", LATENTS): (Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.INPAINTING),
    ("sd", DEPTH): (Task.DEPTH_TO_IMAGE,),
    ("sd", UPSCALER): (Task.UPSCALE,),
    ("sd", INPAINTING): (Task.INPAINTING,),
    ("sdxl", LATENTS): (Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.INPAINTING),
    ("sdxl", INPAINTING): (Task.INPAINTING,),
}
"""What each kind of UNet can draw."""

Config = Mapping[str, Any]


class Source(Protocol):
    """Where the parts of one checkpoint come from: a folder or a single file."""

    @property
    def configs(self) -> Path:
        """A diffusers folder, of which only the configs are read."""

    def has(self, part: str) -> bool:
        """Whether it has this part."""

    def check(self, part: str) -> None:
        """That the part's weights can be read.

        Raises:
            CheckpointError: they cannot; says why.
        """

    def weights_bytes(self, part: str) -> int:
        """How large they are."""

    def model(self, part: str, kind: Any, dtype: Any) -> Any:
        """The part, on the CPU.

        Raises:
            CheckpointError: it is not whole.
        """

    def tokenizer(self, part: str) -> Any:
        """The tokenizer of this name.

        Raises:
            CheckpointError: it cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The names of a checkpoint's parts, and the configs that no part carries itself."""

    encoders: tuple[str, ...]
    tokenizers: tuple[str, ...]
    depth: bool
    safety: bool
    sampler_config: Config
    low_res_sampler_config: Config | None
    zeros_for_empty_prompt: bool

    @property
    def weights(self) -> tuple[str, ...]:
        """The parts that have weights, in the order they are loaded."""
        more = ("depth_estimator",) * self.depth + ("safety_checker",) * self.safety
        return (*self.encoders, "unet", "vae", *more)


def examine(source: Source, card: Card) -> Anatomy:
    """What this checkpoint consists of.

    Raises:
        CheckpointError: it is incomplete or does not fit its card; says which part and how.
    """
    try:
        with refusing("its configs are not as diffusers writes them"):
            return _examine(source, card)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {card.name!r}: {error}") from error


def _examine(source: Source, card: Card) -> Anatomy:
    index = read_json(source.configs / "model_index.json")
    _check_family(index, card)
    refines = card.family == "sdxl" and (index.get("text_encoder") or (None, None))[1] is None
    suffixes = ("_2",) if refines else ("", "_2") if card.family == "sdxl" else ("",)
    encoders = tuple(f"text_encoder{suffix}" for suffix in suffixes)
    tokenizers = tuple(f"tokenizer{suffix}" for suffix in suffixes)
    _check_parts(source, index, (*encoders, "unet", "vae"), tokenizers)
    unet = read_json(source.configs / "unet" / "config.json")
    _check_unet(unet, card, refines)
    _check_widths(source, unet, encoders)
    upscales = unet["in_channels"] == UPSCALER
    anatomy = Anatomy(
        encoders=encoders,
        tokenizers=tokenizers,
        depth=unet["in_channels"] == DEPTH and source.has("depth_estimator"),
        safety=_checked(source, card),
        sampler_config=_sampler_config(source, card, unet),
        low_res_sampler_config=_low_res(source, index) if upscales else None,
        zeros_for_empty_prompt=card.family == "sdxl" and _zeros(index),
    )
    for part in anatomy.weights:
        source.check(part)
    return anatomy


def _check_family(index: Config, card: Card) -> None:
    kind = index.get("_class_name")
    family = PIPELINES.get(str(kind))
    if family is None:
        raise CheckpointError(f"it is a {kind}, which none of the families sd and sdxl can draw")
    if family != card.family:
        raise CheckpointError(f"it is a {kind}, of family {family}; its card says {card.family}")


def _check_parts(
    source: Source, index: Config, weights: tuple[str, ...], tokenizers: tuple[str, ...]
) -> None:
    for part in (*weights, *tokenizers):
        _, actual = index.get(part) or (None, None)
        there = source.has(part) if part in weights else (source.configs / part).is_dir()
        if actual != CLASSES[part] or not there:
            found = actual if there and actual else "missing"
            raise CheckpointError(f"its {part} should be a {CLASSES[part]} and is {found}")


def _check_unet(config: Config, card: Card, refines: bool) -> None:
    channels = config.get("in_channels", 0)
    draws = DRAWS.get((card.family, channels))
    what = CHANNELS.get(channels, "of another family")
    if draws is None:
        raise CheckpointError(
            f"its UNet takes {channels} channels: it is {what}, which {card.family} cannot draw"
        )
    if config.get("time_cond_proj_dim") is not None and channels not in (LATENTS, INPAINTING):
        raise CheckpointError(f"its UNet reads the guidance scale, and it is {what}: none draws so")
    expected = "text_time" if card.family == "sdxl" else None
    if config.get("addition_embed_type") != expected:
        raise CheckpointError(f"its UNet is not of the family {card.family}")
    if refines:
        what, draws = "a refiner", (Task.IMAGE_TO_IMAGE,)
    wrong = [task for task in card.tasks if task not in draws]
    if wrong:
        raise CheckpointError(
            f"its UNet takes {channels} channels: it is {what} and draws {', '.join(draws)};"
            f" its card says {', '.join(wrong)}"
        )


def _check_widths(source: Source, unet: Config, encoders: tuple[str, ...]) -> None:
    """The UNet reads what all text encoders make, side by side."""
    configs = [read_json(source.configs / encoder / "config.json") for encoder in encoders]
    made = sum(config.get("hidden_size", 0) for config in configs)
    read = unet.get("cross_attention_dim")
    if read != made:
        raise CheckpointError(
            f"its UNet reads embeddings {read} wide, {' and '.join(encoders)} make {made}"
        )


def _zeros(index: Config) -> bool:
    """What an index from before the key existed leaves to the defaults of diffusers' pipelines."""
    return bool(index.get("force_zeros_for_empty_prompt", True))


def _checked(source: Source, card: Card) -> bool:
    if card.safety is Safety.OFF:
        return False
    if not (source.has("safety_checker") and (source.configs / "feature_extractor").is_dir()):
        raise CheckpointError(
            f"its card says safety = {card.safety.value!r}, but it has no safety_checker with a"
            " feature_extractor"
        )
    return True


def _low_res(source: Source, index: Config) -> Config:
    _, kind = index.get("low_res_scheduler") or (None, None)
    if kind != CLASSES["low_res_scheduler"]:
        raise CheckpointError("its low_res_scheduler, by which an upscaler noises, is missing")
    return read_json(source.configs / "low_res_scheduler" / "scheduler_config.json")


def _sampler_config(source: Source, card: Card, unet: Config) -> Config:
    config = read_json(source.configs / "scheduler" / "scheduler_config.json")
    if card.family == "sd" and unet["in_channels"] in (LATENTS, INPAINTING):
        # What diffusers' pipelines correct in configs from before these keys existed.
        config |= {"steps_offset": 1, "clip_sample": False}
    # SDXL's own file says it too; a config without it would let some samplers clip the latents.
    config = {"clip_sample": False} | config
    if card.zero_terminal_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    config |= card.sampler_config
    actual = config.get("prediction_type", "epsilon")
    if actual != card.prediction_type:
        raise CheckpointError(f"it predicts {actual}, its card says {card.prediction_type}")
    return config
