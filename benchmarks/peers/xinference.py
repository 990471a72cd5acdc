"""Xinference, which draws one picture at a time with its own copy of diffusers' pipeline."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks.peers import venvs
from benchmarks.peers.orders import Order
from benchmarks.peers.places import PATIENCE_SECONDS, Checkpoint, Place, Shown, free_port, process

SAMPLERS = {"dpmpp_2m": "DPM++ 2M", "euler": "Euler", "euler_a": "Euler a"}
UID = "peer"
MODEL = "stable-diffusion-v1.5"
"""By its name Xinference knows which pipeline to load a folder with."""


class Xinference:
    """Its supervisor and a worker in one process, and a process for the model."""

    @contextlib.contextmanager
    def open(self, checkpoint: Checkpoint) -> Iterator[Place]:
        """With the model launched."""
        python, port = venvs.xinference(), free_port()
        command = [python, str(Path(python).with_name("xinference-local"))]
        launch = {
            "model_uid": UID,
            "model_name": MODEL,
            "model_type": "image",
            "model_path": str(checkpoint.folder),
            "torch_dtype": "float32",  # by itself it takes float16, which is slow on a CPU
            "enable_virtual_env": False,
        }
        with tempfile.TemporaryDirectory() as home:
            more = {"XINFERENCE_HOME": home, "XINFERENCE_AUTH_ADVANCED": "0", "HF_HUB_OFFLINE": "1"}
            words = [*command, "-H", "127.0.0.1", "-p", str(port)]
            with process(words, port, more) as place:
                answer = httpx.post(
                    f"{place.url}/v1/models", json=launch, timeout=PATIENCE_SECONDS, trust_env=False
                )
                if answer.is_error:
                    raise RuntimeError(f"Xinference does not launch the model: {answer.text}")
                yield place

    async def draw(self, client: httpx.AsyncClient, order: Order, shown: Shown | None) -> bytes:
        """One POST at its OpenAI door, which answers with a JPEG and cannot be told not to."""
        options = {
            "num_inference_steps": order.num_inference_steps,
            "guidance_scale": order.guidance_scale,
            "seed": order.seed,
            "sampler_name": SAMPLERS[order.sampler],
        }
        body = {
            "model": UID,
            "prompt": order.prompt,
            "size": f"{order.width}*{order.height}",
            "response_format": "b64_json",
            "kwargs": json.dumps(options),
        }
        answer = await client.post("/v1/images/generations", json=body)
        picture = answer.raise_for_status().json()["data"][0]["b64_json"]
        return base64.b64decode(picture)
