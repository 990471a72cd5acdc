"""OpenAI's own package, through the real gateway and queue, to a worker of the demo checkpoint."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from PIL import Image

from demo.evaluate import judge
from tests.system.conftest import Served

RED = "a red circle on a blue background"
YELLOW = "a yellow star on a blue background"
QUICK = {"num_inference_steps": 10, "seed": 3}


@pytest.fixture
def sdk(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none-needed", timeout=90) as sdk:
        yield sdk


def pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def shown(picture: NDArray[np.uint8]) -> tuple[str, str, str]:
    verdict = judge(picture.astype(np.float32))
    return verdict.shape, verdict.colour, verdict.background


def drawn(sdk: openai.OpenAI, **fields: Any) -> bytes:
    answer = sdk.images.generate(**({"prompt": RED, "extra_body": QUICK} | fields))
    assert answer.data is not None
    return base64.b64decode(answer.data[0].b64_json or "")


def png(picture: NDArray[np.uint8], mode: str | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture, mode).save(file, "PNG")
    return file.getvalue()


def test_what_is_asked_for_is_drawn(sdk: openai.OpenAI) -> None:
    assert shown(pixels(drawn(sdk, model="demo", size="128x128"))) == ("circle", "red", "blue")


def test_a_picture_is_fetched_from_where_the_answer_says(sdk: openai.OpenAI) -> None:
    answer = sdk.images.generate(prompt=RED, model="dall-e-3", extra_body=QUICK)
    assert answer.data is not None
    found = httpx.get(answer.data[0].url or "").content
    assert shown(pixels(found)) == ("circle", "red", "blue")
    assert found == drawn(sdk)


def test_only_what_is_transparent_in_the_mask_is_painted(sdk: openai.OpenAI) -> None:
    before = drawn(sdk)
    mask = np.zeros((128, 128, 4), np.uint8)
    mask[..., 3] = 255
    mask[20:108, 20:108, 3] = 0
    answer = sdk.images.edit(image=before, mask=png(mask), prompt=YELLOW, extra_body=QUICK)
    assert answer.data is not None
    after = pixels(base64.b64decode(answer.data[0].b64_json or ""))
    assert shown(after) == ("star", "yellow", "blue")
    kept = mask[..., 3] == 255
    assert (after[kept] == pixels(before)[kept]).all()


def test_previews_of_a_stream_come_closer_to_the_picture(sdk: openai.OpenAI) -> None:
    with sdk.images.generate(
        prompt=RED, stream=True, partial_images=3, extra_body={"seed": 3, "num_inference_steps": 40}
    ) as stream:
        events = list(stream)
    *partials, completed = events
    assert completed.type == "image_generation.completed"
    assert partials, "there was time for one at least"
    final = pixels(base64.b64decode(completed.b64_json))
    assert shown(final) == ("circle", "red", "blue")
    last = pixels(base64.b64decode(partials[-1].b64_json))
    assert last.shape == final.shape
    assert np.abs(last.astype(int) - final).mean() < 60


def test_the_example_runs(served: Served, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "openai_sdk.py"
    run = subprocess.run(
        [sys.executable, str(example), served.url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert run.returncode == 0, run.stderr
    assert "models: demo\n" in run.stdout
    assert "warning: quality: " in run.stdout
    assert {"picture.png", "edited.png"} <= {path.name for path in tmp_path.iterdir()}
    assert shown(pixels((tmp_path / "picture.png").read_bytes())) == ("circle", "red", "blue")
