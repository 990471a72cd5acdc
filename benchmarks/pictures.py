"""A picture to encode that is no easier than a photograph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grainy(side: int) -> NDArray[np.uint8]:
    """Slopes with grain, of shape (side, side, 3)."""
    y, x = np.mgrid[0:side, 0:side]
    grain = np.random.default_rng(0).integers(-6, 7, (side, side, 3))
    slopes = np.stack([x * 255 // side, y * 255 // side, (x + y) * 255 // (2 * side)], axis=-1)
    return np.clip(slopes + grain, 0, 255).astype(np.uint8)
