"""What a card gains that lets go of exactness: weights in eight bits, a small autoencoder for
previews, and few steps."""

from __future__ import annotations

import importlib.util
import json
import statistics
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

import server
from benchmarks.shortcuts import EXACT, TOGETHER, Way, a_request
from benchmarks.timing import Figure, median_ratio, noted, on_one_core
from server.catalog import load_catalog
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.models.quantized import PACKAGE, quantize
from server.spec import Quantization, Sampler

CONFIGS = Path(server.__file__).parent / "models" / "configs"
INT8 = "int8"
PREVIEWED = (256, 512)
FEW = {"num_inference_steps": 4, "sampler": Sampler.LCM, "guidance_scale": 1.0}


def figures(rounds: int) -> Iterator[Figure]:
    """Of all that a card can say."""
    if importlib.util.find_spec(PACKAGE):
        yield from int8_figures(rounds)
        yield real_size_figure(rounds)
    yield from preview_figures(rounds)
    yield few_steps_figure(rounds)


def int8_figures(rounds: int) -> Iterator[Figure]:
    """(m) The demo with its UNet's linear layers in int8: alone, in company, and how far."""
    exact, kept = _demo(Quantization.NONE), _demo(Quantization.INT8)
    small, large = _weights(kept._unet), _weights(exact._unet)
    for count in (1, TOGETHER):
        specs = [a_request(seed) for seed in range(count)]
        ways = {EXACT: Way(exact, specs), INT8: Way(kept, specs)}
        seconds = on_one_core(ways, rounds)
        yield noted(
            f"(m) int8, demo, {count} at once over as many exact ones",
            median_ratio(seconds[EXACT], seconds[INT8]),
            "x",
            f"{_ms(seconds[INT8]) / count:.0f} against {_ms(seconds[EXACT]) / count:.0f} ms a "
            f"picture; UNet {small:.1f} against {large:.1f} MB; "
            f"from exact: {ways[INT8].far_from(ways[EXACT])}",
        )


def real_size_figure(rounds: int) -> Figure:
    """(n) One guided UNet call of Stable Diffusion v1's size, 256 x 256 pixels."""
    exact = _hollow(UNet2DConditionModel, "unet")
    kept = deepcopy(exact)
    quantize(kept, Quantization.INT8, torch.device("cpu"))
    ways = {EXACT: exact, INT8: kept}
    seconds = on_one_core({name: _call(unet) for name, unet in ways.items()}, rounds)
    return noted(
        "(n) int8, a UNet call of SD v1's size over an exact one",
        median_ratio(seconds[EXACT], seconds[INT8]),
        "x",
        f"{_ms(seconds[INT8]):.0f} against {_ms(seconds[EXACT]):.0f} ms; "
        f"{_weights(kept):.0f} against {_weights(exact):.0f} MB",
    )


def preview_figures(rounds: int) -> Iterator[Figure]:
    """(o) A decode of Stable Diffusion v1's autoencoder, and of an AutoencoderTiny in its place."""
    full, tiny = _hollow(AutoencoderKL, "vae"), AutoencoderTiny().eval()
    for side in PREVIEWED:
        latents = torch.randn(1, 4, side // 8, side // 8)
        runs = {"full": _decoding(full, latents), "tiny": _decoding(tiny, latents)}
        seconds = on_one_core(runs, rounds)
        yield noted(
            f"(o) a tiny autoencoder's decode of {side} x {side}",
            median_ratio(seconds["full"], seconds["tiny"]),
            "x",
            f"{_ms(seconds['tiny']):.0f} against {_ms(seconds['full']):.0f} ms; "
            f"{_weights(tiny):.1f} against {_weights(full):.0f} MB",
        )


def few_steps_figure(rounds: int) -> Figure:
    """(p) What four steps without guidance cost. The demo is not distilled, so what they draw says
    nothing."""
    denoiser = _demo(Quantization.NONE)
    own = [a_request(seed) for seed in range(TOGETHER)]
    few = [spec.model_copy(update=FEW) for spec in own]
    seconds = on_one_core({"own": Way(denoiser, own), "few": Way(denoiser, few)}, rounds)
    return noted(
        f"(p) 4 unguided steps over {own[0].num_inference_steps} guided ones, demo",
        median_ratio(seconds["own"], seconds["few"]),
        "x",
        f"{TOGETHER} at once; decoding is in both",
    )


def _demo(quantization: Quantization) -> LatentDiffusion:
    card = load_catalog()["demo"].model_copy(update={"quantization": quantization})
    return load(card, "cpu", "float32")


def _hollow(kind: Any, part: str) -> Any:
    """A part of Stable Diffusion v1 in its real size. All its weights are alike: to multiply them
    takes as long as to multiply others."""
    config = json.loads((CONFIGS / "sd-v1" / part / "config.json").read_text())
    with torch.device("meta"):
        model = kind.from_config(config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    for each in model.parameters():
        each.fill_(0.01)
    return model.to(memory_format=torch.channels_last)


def _call(unet: Any) -> Callable[[], object]:
    inputs = torch.randn(2, 4, 32, 32), torch.full((2,), 500.0), torch.randn(2, 77, 768)

    @torch.inference_mode()
    def call() -> None:
        unet(*inputs, return_dict=False)

    return call


def _decoding(autoencoder: Any, latents: torch.Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def decode() -> None:
        autoencoder.decode(latents, return_dict=False)

    return decode


def _weights(model: Any) -> float:
    """Megabytes that they take."""
    return sum(_kept(each) for each in model.parameters()) / 1e6


def _kept(weight: torch.Tensor) -> int:
    if not hasattr(weight, "qdata"):
        return weight.nbytes
    parts: list[torch.Tensor] = [weight.qdata, weight.scale]  # type: ignore[attr-defined]
    return sum(each.nbytes for each in parts)


def _ms(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)
