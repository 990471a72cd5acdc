"""From a card to a checkpoint on a device, part by part. Knows no queue and no pictures."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPTextModel, CLIPTextModelWithProjection, DPTForDepthEstimation

from server.catalog import Attention, Card
from server.errors import CheckpointError
from server.models.adapters import Adapters
from server.models.anatomy import Anatomy, Source, examine
from server.models.compiled import compile_blocks
from server.models.device import choose_device, choose_dtype, device_errors, has_arithmetic
from server.models.diffusion import LatentDiffusion
from server.models.families import conditioner
from server.models.folder import Folder
from server.models.graphs import record_calls
from server.models.parts import DepthEstimator, Parts, SafetyChecker, TextReader
from server.models.placement import let_visit, set_attention
from server.models.preview_vae import with_preview_vae
from server.models.quantized import check_quantization, quantize
from server.models.replacement_vae import with_vae
from server.models.single_file import SingleFile
from server.models.sources import locate, read_json, refusing
from server.spec import Quantization

log = logging.getLogger("darkroom.models")

Offload = Literal["none", "encoders"]
Progress = Callable[[str, int, int], None]
"""Told as each part begins: its name, the bytes of weights read before it, the bytes in all."""

KINDS: dict[str, Any] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "depth_estimator": DPTForDepthEstimation,
    "safety_checker": StableDiffusionSafetyChecker,
}
ALWAYS_ON_DEVICE = frozenset({"unet", "vae"})


class Fitting(TypedDict, total=False):
    """How a checkpoint is read and laid on its device; `load_parts` says what each means."""

    allow_pickle: bool
    attention: str
    vae_tiling: bool
    vae_slicing: bool
    offload: Offload
    source: Source | None


def load(
    card: Card,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
    models_dir: Path | None = None,
    *,
    compiled_dir: Path | None = None,
    cuda_graphs: bool = False,
    **fitting: Unpack[Fitting],
) -> LatentDiffusion:
    """The card's checkpoint, ready to draw; `load_parts` says more.

    Args:
        models_dir: folder with what may be used beside it, such as `embeddings`.
        compiled_dir: the UNet's blocks are compiled, and kept there.
        cuda_graphs: its calls are recorded and replayed, on a GPU.

    Raises:
        CheckpointError: it cannot be loaded; says which part is wrong and how.
        OutOfMemory: it does not fit the device.
    """
    pickles = fitting.get("allow_pickle", False)
    parts = with_vae(
        load_parts(card, device, dtype, progress, **fitting), card, models_dir, pickles
    )
    parts = with_preview_vae(parts, card, models_dir)
    reads = conditioner(parts, card.family, models_dir, pickles)
    parts = replace(
        parts,
        compiled=compile_blocks(parts.unet, compiled_dir) if compiled_dir else None,
        graphs=record_calls(parts.unet) if cuda_graphs else None,
    )
    return LatentDiffusion(parts, reads, Adapters(parts, models_dir, allow_pickle=pickles))


def load_parts(
    card: Card,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
    *,
    allow_pickle: bool = False,
    attention: str = "auto",
    vae_tiling: bool = False,
    vae_slicing: bool = False,
    offload: Offload = "none",
    source: Source | None = None,
) -> Parts:
    """The card's checkpoint on `device`, in evaluation mode.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`, whatever the files hold.
        allow_pickle: whether a `.ckpt` may be read; only tensors are ever taken from it.
        attention: `auto`, `sdpa`, `xformers` or `sliced`, unless the card says.
        vae_tiling: pictures of any size go through the autoencoder in overlapping tiles.
        vae_slicing: they go through it one by one.
        offload: `encoders` keeps what is not needed at every step on the CPU between its calls.
        source: where to read it, instead of where the card says.

    Raises:
        CheckpointError: it cannot be loaded; says which part is wrong and how.
        OutOfMemory: it does not fit the device.
    """
    _quiet()
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    if not has_arithmetic(precision, place):
        spoken = str(precision).removeprefix("torch.")
        log.warning("this CPU is slower in %s than in float32 (DARKROOM_DTYPE)", spoken)
    check_quantization(card, place, precision)
    source, anatomy = _opened(card, allow_pickle, source)
    kept = card.quantization
    loader = _Loader(source, anatomy, place, precision, progress or _ignore, offload, kept)
    models = {part: loader.model(part) for part in anatomy.weights}
    unet, vae = models["unet"], models["vae"]
    chosen = Attention(attention) if card.attention is Attention.AUTO else card.attention
    set_attention(unet, vae, chosen, place)
    if vae_slicing:
        vae.enable_slicing()
    named = zip(anatomy.tokenizers, anatomy.encoders, strict=True)
    return Parts(
        unet=unet,
        vae=vae,
        readers=tuple(TextReader(loader.tokenizer(first), models[then]) for first, then in named),
        sampler_config=anatomy.sampler_config,
        low_res_sampler_config=anatomy.low_res_sampler_config,
        depth=_depth(source, models),
        safety=_safety(source, models),
        zeros_for_empty_prompt=anatomy.zeros_for_empty_prompt,
        always_tiled=vae_tiling,
    )


class _Loader:
    """Loads the parts of one checkpoint onto one device and says what it is at."""

    def __init__(
        self,
        source: Source,
        anatomy: Anatomy,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress,
        offload: Offload,
        quantization: Quantization,
    ) -> None:
        self._source = source
        self._device = device
        self._dtype = dtype
        self._progress = progress
        self._quantization = quantization
        self._offload = offload == "encoders" and device.type != "cpu"
        self._bytes = {part: source.weights_bytes(part) for part in anatomy.weights}
        self._done = 0

    def model(self, part: str) -> Any:
        self._tell(part)
        with device_errors():
            model = self._source.model(part, KINDS[part], self._precision(part))
            model.requires_grad_(False).eval()
            if part == "unet":
                quantize(model, self._quantization, self._device)
            if self._offload and part not in ALWAYS_ON_DEVICE:
                let_visit(model, self._device)
            else:  # channels last is what convolutions want
                model.to(self._device, memory_format=torch.channels_last)
        self._done += self._bytes[part]
        return model

    def tokenizer(self, part: str) -> Any:
        self._tell(part)
        return self._source.tokenizer(part)

    def _precision(self, part: str) -> torch.dtype:
        """float32 for what overflows in float16: DPT's batch norms, and an autoencoder whose own
        config says so."""
        if part == "depth_estimator":
            return torch.float32
        if part == "vae" and self._dtype is torch.float16:
            # Read from the file: the class's default is true, even for those that need it not.
            upcast = read_json(self._source.configs / "vae" / "config.json").get("force_upcast")
            return torch.float32 if upcast else self._dtype
        return self._dtype

    def _tell(self, part: str) -> None:
        self._progress(part, self._done, sum(self._bytes.values()))


def _opened(card: Card, allow_pickle: bool, given: Source | None) -> tuple[Source, Anatomy]:
    if given is not None:
        return given, examine(given, card)
    path = locate(card)
    try:
        source = Folder(path) if path.is_dir() else SingleFile(path, card, allow_pickle)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {card.name!r}: {error}") from error
    return source, examine(source, card)


def _depth(source: Source, models: dict[str, Any]) -> DepthEstimator | None:
    if "depth_estimator" not in models:
        return None
    return DepthEstimator(models["depth_estimator"], _processor(source, "DPTImageProcessor"))


def _safety(source: Source, models: dict[str, Any]) -> SafetyChecker | None:
    if "safety_checker" not in models:
        return None
    return SafetyChecker(models["safety_checker"], _processor(source, "CLIPImageProcessor"))


def _processor(source: Source, kind: str) -> Any:
    folder = source.configs / "feature_extractor"
    with refusing("the feature_extractor cannot be loaded"):
        # Looked up late: to be imported, these say at length that torchvision would be faster.
        return getattr(transformers, kind).from_pretrained(folder, local_files_only=True)


def _quiet() -> None:
    """The libraries' bars and advice do not belong into a server's log."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=UserWarning, module="torchsde")


def _ignore(part: str, done: int, total: int) -> None:
    """The progress of a load that nobody watches."""
