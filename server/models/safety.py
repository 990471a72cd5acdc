"""The safety checker that came with a checkpoint. Says what it sees; decides nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.models.parts import SafetyChecker


class SafetyReader:
    """May be called from several threads."""

    def __init__(self, checker: SafetyChecker | None) -> None:
        self._checker = checker

    def flags(self, pixels: NDArray[np.uint8]) -> bool | None:
        """Whether a picture of (height, width, 3) is flagged; None where nothing checks it."""
        if self._checker is None:
            return None
        model, processor = self._checker.model, self._checker.processor
        read = processor(Image.fromarray(pixels), return_tensors="pt").pixel_values
        # It blackens what it flags, in place: what we do with a flagged picture is not its affair.
        seen = [np.zeros_like(pixels)]
        _, flagged = model(images=seen, clip_input=read.to(model.device, model.dtype))
        return bool(flagged[0])
