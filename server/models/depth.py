"""Depth maps: sent by the client, or estimated by the checkpoint's DPT-hybrid model."""

from __future__ import annotations

import torch
from PIL import Image
from torch.nn.functional import interpolate

from server.errors import InvalidSpec
from server.models.parts import DepthEstimator
from server.pixels import Inputs

FLAT = 1e-6
"""A map whose range is no larger a share of its largest value is far everywhere: its range is
rounding, which must not be stretched to the whole of it."""


class DepthReader:
    """Makes the depth channel of a UNet. May be called from several threads."""

    def __init__(self, estimator: DepthEstimator | None) -> None:
        self._estimator = estimator

    def read(self, inputs: Inputs, width: int, height: int, size: tuple[int, int]) -> torch.Tensor:
        """Depth in -1 (far) to 1 (near), of (1, 1, *size).

        Raises:
            InvalidSpec: none was sent, and the checkpoint has no estimator.
        """
        if inputs.depth is not None:
            depth = torch.from_numpy(inputs.depth)[None]  # (1, h, w)
        else:
            depth = self._estimated(inputs, width, height)
        depth = interpolate(depth[:, None], size=size, mode="bicubic", align_corners=False)
        low, high = depth.amin(), depth.amax()
        if high - low <= FLAT * depth.abs().amax():
            return torch.full_like(depth, -1.0)
        return 2 * (depth - low) / (high - low) - 1

    def _estimated(self, inputs: Inputs, width: int, height: int) -> torch.Tensor:
        if self._estimator is None:
            raise InvalidSpec(
                "this checkpoint came without its depth estimator; send a depth_map",
                field="depth_map",
            )
        assert inputs.image is not None
        picture = Image.fromarray(inputs.image).resize((width, height), Image.Resampling.LANCZOS)
        model = self._estimator.model
        pixels = self._estimator.processor(images=picture, return_tensors="pt").pixel_values
        depth: torch.Tensor = model(pixels.to(model.device, model.dtype)).predicted_depth
        return depth.float()
