"""Bodies and answers of this door as the documents show them."""

from __future__ import annotations

import json
from typing import Any

from server import __version__
from server.api.examples import EXAMPLE_ID, MASK, PICTURE

PROMPT = "a red circle on a blue background"

TEXT_REQUEST: dict[str, Any] = {
    "prompt": PROMPT,
    "steps": 20,
    "cfg_scale": 4.0,
    "width": 128,
    "height": 128,
    "seed": 7,
    "sampler_name": "DPM++ 2M",
    "scheduler": "automatic",
    "override_settings": {"sd_model_checkpoint": "demo"},
}
PICTURE_REQUEST: dict[str, Any] = {
    "prompt": "a green triangle on a white background",
    "init_images": [PICTURE],
    "mask": MASK,
    "denoising_strength": 0.9,
    "inpaint_full_res": False,
    "steps": 20,
    "width": 128,
    "height": 128,
}
INFOTEXT = (
    f"{PROMPT}\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4, Seed: 7, "
    f"Size: 128x128, Model: demo, Version: darkroom {__version__}"
)
INFO = {
    "prompt": PROMPT,
    "seed": 7,
    "all_seeds": [7],
    "width": 128,
    "height": 128,
    "infotexts": [INFOTEXT],
    "darkroom_generation": EXAMPLE_ID,
    "darkroom_warnings": [],
}
DRAWN: dict[str, Any] = {
    "images": [PICTURE.partition(",")[2]],
    "parameters": TEXT_REQUEST,
    "info": json.dumps(INFO),
}
