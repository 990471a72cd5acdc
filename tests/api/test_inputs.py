"""Pictures that are too large, too narrow or too many, and masks under which nothing is drawn."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.house import Hands
from tests.api.pictures import body, mask, picture
from tests.api.test_tasks import codes_of, refused, spec_of

PAINTED = {"task": "inpainting", "checkpoint": "painter"}


def test_a_picture_of_more_pixels_than_the_card_reads_is_told_its_size(
    atelier: httpx.Client, painter: Hands
) -> None:
    pictures = {"image": picture(400, 200), "mask_image": mask(200, 200)}
    found = refused(atelier, **PAINTED, **pictures, width=128, height=128)
    assert found == {
        "image": "image: has 400 x 200 pixels, at most 40,000 are read, of this shape 282 x 141"
    }
    assert painter.kept() == []


def test_the_limit_of_the_demo_is_four_mebipixels(atelier: httpx.Client) -> None:
    fields = {"task": "image-to-image", "checkpoint": "demo", "width": 128, "height": 128}
    assert spec_of(atelier, **fields, image=picture(2048, 2048))["image"]["width"] == 2048
    answer = atelier.post("/v1/generations", json=body(**fields, image=picture(2049, 2048)))
    assert "at most 4,194,304 are read" in answer.json()["detail"]


def test_images_that_are_pasted_into_the_whole_input_share_its_limit(
    atelier: httpx.Client,
) -> None:
    fields = {**PAINTED, "image": picture(200, 200), "mask_image": mask(200, 200)}
    fields |= {"width": 128, "height": 128, "padding_mask_crop": 0}
    found = refused(atelier, **fields, num_images=5)
    assert "of 200 x 200 pixels at most 4 fit" in found["num_images"]
    assert "at most 4 fit" in refused(atelier, **fields, sweep={"seed": [1, 2, 3, 4, 5]})["sweep"]
    assert spec_of(atelier, **fields, num_images=4)["num_images"] == 4
    assert spec_of(atelier, **fields | {"padding_mask_crop": None}, num_images=5)


@pytest.mark.parametrize("size", [(1, 3000), (3000, 2), (2000, 62)])
@pytest.mark.parametrize("crop", [None, 8])
def test_a_picture_of_a_shape_that_has_nothing_left_once_resized_is_refused(
    atelier: httpx.Client, size: tuple[int, int], crop: int | None
) -> None:
    fields = {"task": "inpainting", "image": picture(*size), "mask_image": mask(*size)}
    found = refused(atelier, **fields, width=128, height=128, padding_mask_crop=crop)
    assert "at most 32 times as long" in found["image"]


@pytest.mark.parametrize("task", ["image-to-image", "depth-to-image"])
def test_a_picture_of_an_extreme_shape_is_refused_for_every_task(
    atelier: httpx.Client, task: str
) -> None:
    found = refused(atelier, task=task, image=picture(2000, 1), width=128, height=128)
    assert "crop it" in found["image"]


def painted(shade: int, **more: Any) -> dict[str, Any]:
    return {"task": "inpainting", "image": picture(), "mask_image": mask(shade=shade)} | more


@pytest.mark.parametrize(("shade", "found"), [(0, "black everywhere"), (127, "nowhere brighter")])
def test_a_mask_under_which_nothing_is_drawn_is_listed(
    atelier: httpx.Client, shade: int, found: str
) -> None:
    answer = atelier.post("/v1/generations", json=body(**painted(shade)))
    assert answer.status_code == 202, answer.text
    [warning] = answer.json()["warnings"]
    assert (warning["code"], warning["field"]) == ("nothing_repainted", "mask_image")
    assert found in warning["message"]


def test_a_mask_under_which_nothing_is_drawn_is_refused_if_strict(atelier: httpx.Client) -> None:
    assert "nothing is repainted" in refused(atelier, **painted(0, strict=True))["mask_image"]


def test_a_mask_that_is_half_bright_is_painted(atelier: httpx.Client) -> None:
    assert codes_of(atelier, **painted(128)) == []


def test_there_is_nothing_to_crop_to_in_a_black_mask(atelier: httpx.Client, painter: Hands) -> None:
    found = refused(atelier, **painted(0, padding_mask_crop=8))
    assert "nothing to crop to" in found["mask_image"]
    assert painter.kept() == []
