"""The `webuiapi` package as it is, with the real gateway, queue, worker and demo checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import webuiapi
from PIL import Image, ImageDraw

from demo.evaluate import judge
from tests.api.house import wait_until
from tests.system.conftest import Served

RED = "a red circle on a blue background"
SMALL: dict[str, Any] = {"width": 128, "height": 128, "cfg_scale": 4, "seed": 7}


@pytest.fixture
def api(served: Served) -> Iterator[Any]:
    api = webuiapi.WebUIApi(baseurl=f"{served.url}/sdapi/v1", sampler="DPM++ 2M", steps=20)
    yield api
    api.session.close()


def shown(image: Image.Image) -> tuple[str, str, str]:
    verdict = judge(np.asarray(image.convert("RGB")).astype(np.float32))
    return verdict.shape, verdict.colour, verdict.background


def test_a_red_circle_that_says_how_it_was_drawn(api: Any) -> None:
    drawn = api.txt2img(prompt=RED, batch_size=2, **SMALL)
    assert [shown(image) for image in drawn.images] == [("circle", "red", "blue")] * 2
    assert drawn.info["all_seeds"] == [7, 8]
    said = api.png_info(drawn.images[1])
    assert (said.parameters["Prompt"], said.parameters["Seed"]) == (RED, "8")
    assert said.info == drawn.info["infotexts"][1]


def test_what_is_white_in_a_mask_is_drawn_again_and_nothing_else(api: Any) -> None:
    drawn = api.txt2img(prompt=RED, **SMALL).image.convert("RGB")
    mask = Image.new("RGB", drawn.size, "black")
    ImageDraw.Draw(mask).rectangle((20, 20, 108, 108), fill="white")
    painted = api.img2img(
        images=[drawn],
        mask_image=mask,
        mask_blur=0,
        inpaint_full_res=False,
        prompt="a yellow star on a blue background",
        denoising_strength=1.0,
        **SMALL,
    ).image.convert("RGB")
    before, after = np.asarray(drawn), np.asarray(painted)
    outside = np.asarray(mask)[..., 0] == 0
    np.testing.assert_array_equal(after[outside], before[outside])
    assert shown(painted)[:2] == ("star", "yellow")


def test_hires_fix_and_a_larger_picture(api: Any) -> None:
    drawn = api.txt2img(prompt=RED, enable_hr=True, denoising_strength=0.5, **SMALL).image
    assert drawn.size == (256, 256)
    assert shown(drawn.resize((128, 128)))[1:] == ("red", "blue")
    larger = api.extra_single_image(image=drawn, upscaler_1="Lanczos", upscaling_resize=2)
    assert larger.image.size == (512, 512)


def test_a_long_drawing_is_seen_and_interrupted(api: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(api.txt2img, prompt=RED, steps=150, batch_size=8, **SMALL)
        wait_until(lambda: api.get_progress()["progress"] > 0.05, 60)
        wait_until(lambda: api.get_progress()["current_image"] is not None, 60)
        assert api.get_progress()["state"]["job_count"] == 1
        api.interrupt()
        result = drawing.result(60)
    assert result.images == []
    assert result.info["interrupted"]
    assert api.get_progress()["state"]["job_count"] == 0
