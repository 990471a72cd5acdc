"""One builder per noun; keywords change only what a test is about."""

from __future__ import annotations

import time
import uuid
from typing import Any

from server.spec import OutputFormat, Sampler, Sigmas, TextToImage
from server.workers.stage import Claim


def a_spec(**changes: Any) -> TextToImage:
    """A small guided text-to-image spec of the demo checkpoint."""
    fields: dict[str, Any] = {
        "checkpoint": "demo",
        "prompt": "a red circle on a blue background",
        "negative_prompt": "",
        "width": 128,
        "height": 128,
        "num_images": 1,
        "num_inference_steps": 4,
        "guidance_scale": 4.0,
        "guidance_rescale": 0.0,
        "eta": 0.0,
        "sampler": Sampler.EULER,
        "sigmas": Sigmas.DEFAULT,
        "seed": 1,
        "clip_skip": 0,
        "output_format": OutputFormat.PNG,
        "priority": 0,
        "deadline_seconds": 60.0,
        "strict": False,
    }
    return TextToImage(**(fields | changes))


def a_claim(id: str = "gen_" + 32 * "0", **changes: Any) -> Claim:
    """A claim made now of a generation that was accepted now."""
    now = time.time()
    return Claim(
        id=id, execution=uuid.uuid4().hex, spec=a_spec(**changes), created_at=now, started_at=now
    )
