"""Every task that the demo checkpoint can do, through the real gateway, queue and worker."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from demo.evaluate import judge
from tests.system.conftest import Served

RED = "a red circle on a blue background"
YELLOW = "a yellow star on a blue background"


def draw(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """The record of a generation that has succeeded."""
    common = {"prompt": RED, "num_inference_steps": 10, "seed": 3}
    answer = client.post("/v1/generations", json=common | body, headers={"Prefer": "wait=90"})
    record: dict[str, Any] = answer.json()
    assert record.get("status") == "succeeded", record
    return record


def pixels(client: httpx.Client, image: dict[str, Any]) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(client.get(image["url"]).content)) as picture:
        assert picture.size == (image["width"], image["height"])
        return np.asarray(picture.convert("RGB"))


def shown(picture: NDArray[np.uint8]) -> tuple[str, str, str]:
    small = Image.fromarray(picture).resize((128, 128))
    verdict = judge(np.asarray(small).astype(np.float32))
    return verdict.shape, verdict.colour, verdict.background


def png(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def red_circle(served: Served) -> NDArray[np.uint8]:
    with served.client() as client:
        return pixels(client, draw(client)["images"][0])


def test_a_picture_is_drawn_over(served: Served, red_circle: NDArray[np.uint8]) -> None:
    with served.client() as client:
        record = draw(
            client, task="image-to-image", image=png(red_circle), prompt=YELLOW, strength=0.9
        )
        assert shown(pixels(client, record["images"][0])) == ("star", "yellow", "blue")
        assert record["spec"]["strength"] == 0.9


def test_strength_0_gives_the_picture_back_through_the_autoencoder(
    served: Served, red_circle: NDArray[np.uint8]
) -> None:
    with served.client() as client:
        record = draw(client, task="image-to-image", image=png(red_circle), strength=0)
        back = pixels(client, record["images"][0]).astype(int)
        assert np.abs(back - red_circle).mean() < 2
        assert record["metrics"]["steps"] == 0


def test_only_what_the_mask_shows_is_painted(served: Served, red_circle: NDArray[np.uint8]) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[20:108, 20:108] = 255
    with served.client() as client:
        record = draw(
            client, task="inpainting", image=png(red_circle), mask_image=png(mask), prompt=YELLOW
        )
        painted = pixels(client, record["images"][0])
    assert shown(painted) == ("star", "yellow", "blue")
    assert (painted[mask == 0] == red_circle[mask == 0]).all()


@pytest.mark.parametrize("enlarged", ["latents", "picture"])
def test_hires_fix_draws_larger_as_one_generation(served: Served, enlarged: str) -> None:
    with served.client() as client:
        record = draw(client, hires={"scale": 2, "strength": 0.5, "enlarged": enlarged})
        picture = pixels(client, record["images"][0])
        assert picture.shape == (256, 256, 3)
        assert shown(picture) == ("circle", "red", "blue")
        assert [stage["checkpoint"] for stage in record["stages"]] == ["demo", "demo"]
        assert record["progress"]["fraction"] == 1


def test_a_sweep_is_one_generation_with_a_grid(served: Served) -> None:
    with served.client() as client:
        sweep = {"guidance_scale": [1.5, 4], "num_inference_steps": [4, 8, 12]}
        record = draw(client, num_inference_steps=None, sweep=sweep)
        assert [image["varied"] for image in record["images"]] == [
            {"guidance_scale": scale, "num_inference_steps": steps}
            for scale in (1.5, 4)
            for steps in (4, 8, 12)
        ]
        alone = draw(client, guidance_scale=4, num_inference_steps=8)["images"][0]
        assert (pixels(client, record["images"][4]) == pixels(client, alone)).mean() > 0.99
        grid = pixels(client, record["grid"])
        assert grid.shape[0] > 2 * 128
        assert grid.shape[1] > 3 * 128


def test_tasks_share_their_steps(served: Served, red_circle: NDArray[np.uint8]) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    image = png(red_circle)
    bodies: list[dict[str, Any]] = [
        {"num_inference_steps": 40},
        {"num_inference_steps": 60, "task": "image-to-image", "image": image, "strength": 0.8},
        {
            "num_inference_steps": 40,
            "task": "inpainting",
            "image": image,
            "mask_image": png(mask),
        },
    ]
    with served.client() as client, ThreadPoolExecutor(3) as clients:
        records = list(clients.map(lambda body: draw(client, **body), bodies))
    assert max(record["metrics"]["mean_batch_rows"] for record in records) > 3


def test_a_file_part_is_as_good_as_base64(served: Served, red_circle: NDArray[np.uint8]) -> None:
    image = base64.b64decode(png(red_circle))
    request = json.dumps({"task": "image-to-image", "prompt": RED, "strength": 0.5, "seed": 9})
    with served.client() as client:
        answer = client.post(
            "/v1/generations",
            files={"request": (None, request, "application/json"), "image": ("in.png", image)},
            headers={"Prefer": "wait=90"},
        )
        assert answer.json()["status"] == "succeeded", answer.text
