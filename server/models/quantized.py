"""A UNet's linear layers with their weights in eight bits, by torchao.

`int8` is torchao's Int8WeightOnlyConfig, `fp8` its Float8DynamicActivationFloat8WeightConfig, both
with a scale for each row, so that what a picture becomes does not depend on who shares its calls.
Knows no files and no requests.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from server.catalog import Card
from server.errors import CheckpointError
from server.spec import Quantization

PACKAGE = "torchao"
FP8_CAPABILITY = (8, 9)
"""The first CUDA devices that multiply in fp8: Ada Lovelace, then Hopper."""


def check_quantization(card: Card, device: torch.device, dtype: torch.dtype) -> None:
    """That the card's checkpoint can be quantized here.

    Raises:
        CheckpointError: it cannot; says why.
    """
    asked = card.quantization
    if asked is Quantization.NONE:
        return
    said = f"checkpoint {card.name!r}: quantization = {asked.value!r} needs"
    if importlib.util.find_spec(PACKAGE) is None:
        how = "pip install '.[quantized]' in the folder of Darkroom's source"
        raise CheckpointError(f"{said} the package torchao: {how}")
    if asked is not Quantization.FP8:
        return
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise CheckpointError(f"{said} a GPU that computes in fp8 (compute 8.9 or later): {device}")
    if dtype is not torch.bfloat16:
        spoken = str(dtype).removeprefix("torch.")
        raise CheckpointError(f"{said} DARKROOM_DTYPE=bfloat16, not {spoken}")


def quantize(unet: Any, quantization: Quantization, device: torch.device) -> None:
    """Keeps the weights of its linear layers in eight bits, and puts it on `device` layer by layer,
    so that it never takes the room there that it took before.

    Raises:
        OutOfMemory: it does not fit the device all the same.
    """
    if quantization is Quantization.NONE:
        return
    from torchao.quantization import quantize_  # optional, and slow to import

    quantize_(unet, _config(quantization), device=device)


def _config(quantization: Quantization) -> Any:
    """Nothing here may change how others compile."""
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int8WeightOnlyConfig,
        PerRow,
    )

    if quantization is Quantization.INT8:
        return Int8WeightOnlyConfig(granularity=PerRow(), set_inductor_config=False)
    return Float8DynamicActivationFloat8WeightConfig(
        granularity=PerRow(), set_inductor_config=False
    )
