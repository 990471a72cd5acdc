"""Requests and records as the documents show them. A test sends every request to a gateway."""

from __future__ import annotations

from typing import Any

EXAMPLE_ID = "gen_01a1fd190d80429bc543ce95ab93d44f"
HERE = f"/v1/generations/{EXAMPLE_ID}"

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAIAAAACAAQMAAAD58POIAAAABlBMVEUUKMjcHh7VtZWGAAAA"
    "J0lEQVR42mNgGAWjYBQQCxgZGBgY/iNxmNBVjAqMZIFRMApGAfEAAGCiAUCx98SCAAAAAElFTkSuQmCC"
)
"""128 x 128 pixels: something red on something blue."""
MASK = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAIAAAACAAQAAAADrRVxmAAAAKUlEQVR42mNgGAWjADdgZGBg"
    "YPiPxGFCVzEqMCowKjAqgF1gFIwCfAAAgdABgChkFiIAAAAASUVORK5CYII="
)
"""As large; white in the middle."""

REQUESTS: dict[str, dict[str, Any]] = {
    "text-to-image": {
        "prompt": "a red circle on a blue background",
        "num_inference_steps": 20,
        "guidance_scale": 4.0,
        "seed": 7,
    },
    "image-to-image": {
        "task": "image-to-image",
        "checkpoint": "demo",
        "prompt": "a yellow triangle on a blue background",
        "image": PICTURE,
        "strength": 0.6,
    },
    "inpainting": {
        "task": "inpainting",
        "checkpoint": "demo",
        "prompt": "a green circle on a blue background",
        "image": PICTURE,
        "mask_image": MASK,
        "keep_outside": True,
    },
    "depth-to-image": {
        "task": "depth-to-image",
        "checkpoint": "sd-v2-depth",
        "prompt": "a reading room in warm light",
        "image": PICTURE,
        "depth_map": MASK,
        "strength": 0.9,
    },
    "upscale": {
        "task": "upscale",
        "checkpoint": "sd-x4-upscaler",
        "prompt": "a red boat on a blue sea",
        "image": PICTURE,
        "noise_level": 20,
    },
    "hires": {
        "checkpoint": "demo",
        "prompt": "a red circle on a blue background",
        "hires": {"scale": 1.5, "strength": 0.6, "enlarged": "latents"},
    },
    "refiner": {
        "checkpoint": "demo",
        "prompt": "a red circle on a blue background",
        "refiner": {"checkpoint": "demo", "switch_at": 0.8},
    },
    "refiner and upscaler": {
        "checkpoint": "sdxl-base",
        "prompt": "an old lighthouse, oil on canvas",
        "width": 512,
        "height": 512,
        "refiner": {"checkpoint": "sdxl-refiner", "switch_at": 0.8},
        "upscaler": {"checkpoint": "sd-x4-upscaler", "noise_level": 20},
    },
    "shortcuts": {
        "checkpoint": "demo",
        "prompt": "a red circle on a blue background",
        "guidance_end": 0.5,
        "cache_interval": 2,
    },
    "sweep": {
        "prompt": "a red circle on a blue background",
        "seed": 7,
        "sweep": {"num_inference_steps": [10, 20], "guidance_scale": [1.5, 4.0, 8.0]},
    },
}
"""One for each task and each way to go on from there; with `demo` wherever it can draw it, so that
most can be tried on a server that was just started."""

REQUEST = REQUESTS["text-to-image"]

METRICS = {
    "queue_seconds": 0.007,
    "encode_seconds": 0.021,
    "denoise_seconds": 2.61,
    "decode_seconds": 0.094,
    "publish_seconds": 0.012,
    "total_seconds": 2.753,
    "steps": 20,
    "mean_batch_rows": 3.4,
    "peak_memory_bytes": 412_090_368,
    "worker": "demo-cpu-4a1f",
}
RECORD: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "status": "succeeded",
    "created_at": "2026-11-21T07:54:00.154Z",
    "started_at": "2026-11-21T07:54:00.161Z",
    "finished_at": "2026-11-21T07:54:02.907Z",
    "expires_at": "2026-11-22T07:54:02.907Z",
    "queue_position": None,
    "eta_seconds": None,
    "progress": {"steps_done": 20, "steps_total": 20, "fraction": 1.0},
    "spec": {
        "task": "text-to-image",
        "checkpoint": "demo",
        "prompt": "a red circle on a blue background",
        "negative_prompt": "",
        "width": 128,
        "height": 128,
        "num_images": 1,
        "num_inference_steps": 20,
        "guidance_scale": 4.0,
        "guidance_rescale": 0.0,
        "eta": 0.0,
        "sampler": "dpmpp_2m",
        "sigmas": "default",
        "seed": 7,
        "clip_skip": 0,
        "output_format": "png",
        "priority": 0,
        "deadline_seconds": 3600.0,
        "strict": False,
        "prompt_syntax": "plain",
        "long_prompts": "chunk",
        "loras": [],
        "vae": "",
        "sdxl": None,
        "hires": None,
        "refiner": None,
        "upscaler": None,
        "sweep": None,
        "guidance_end": 1.0,
        "cache_interval": 1,
    },
    "warnings": [],
    "images": [
        {
            "index": 0,
            "url": f"{HERE}/images/0",
            "seed": 7,
            "width": 128,
            "height": 128,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "nsfw": None,
            "varied": {},
            "pixels_sha256": "6ec1f2a3f5c6ce4e9a3a0c2f3b7d9c1d0e8a5b4c7f6e9d8c2b1a0f3e5d4c6b7a",
            "manifest": f"{HERE}/images/0/manifest",
        }
    ],
    "grid": None,
    "stages": [
        {"checkpoint": "demo", "task": "text-to-image", "status": "succeeded", "metrics": METRICS}
    ],
    "metrics": METRICS,
    "replay": None,
    "error": None,
    "urls": {"self": HERE, "cancel": f"{HERE}/cancel", "events": f"{HERE}/events"},
}
EXAMPLE_MANIFEST: dict[str, Any] = {
    "darkroom": 1,
    "version": "0.1.0",
    "spec": RECORD["spec"],
    "sha256": RECORD["images"][0]["sha256"],
    "pixels_sha256": RECORD["images"][0]["pixels_sha256"],
}
QUEUED: dict[str, Any] = RECORD | {
    "status": "queued",
    "started_at": None,
    "finished_at": None,
    "expires_at": None,
    "queue_position": 2,
    "eta_seconds": 4.2,
    "progress": {"steps_done": 0, "steps_total": 20, "fraction": 0.0},
    "images": [],
    "stages": [
        {"checkpoint": "demo", "task": "text-to-image", "status": "queued", "metrics": None}
    ],
    "metrics": None,
}
