"""What an img2img request comes to."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from server.api.a1111.painting import painted, shaped, surrounded
from server.api.a1111.schemas import PictureSent
from server.catalog import Card, load_catalog
from server.errors import NotFound
from server.spec import Task
from tests.api.a1111.conftest import Studio, codes, told
from tests.api.pictures import mask, picture, text

ANY = {"override_settings": {"sd_model_checkpoint": "any"}}


def draw(door: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"prompt": "a red circle", "init_images": [text(picture())]} | ANY | fields
    answer = door.post("/img2img", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def png(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return text(out.getvalue())


def test_a_picture_is_drawn_over(door: httpx.Client, studio: Studio) -> None:
    answer = draw(door, denoising_strength=0.5)
    assert (studio.spec.task, studio.spec.strength) == (Task.IMAGE_TO_IMAGE, 0.5)
    assert told(answer)["denoising_strength"] == 0.5
    assert codes(answer) == set()
    echo = answer.json()["parameters"]
    assert "init_images" not in echo
    assert "mask" not in echo


def test_a_picture_that_needs_nothing_is_stored_as_it_was_sent(
    door: httpx.Client, studio: Studio
) -> None:
    draw(door, init_images=[text(picture(form="JPEG"))])
    assert (studio.uploads[0].format, studio.spec.strength) == ("JPEG", 0.75)


def test_pictures_come_as_data_uris_too_and_can_be_echoed(door: httpx.Client) -> None:
    sent = [f"data:image/png;base64,{text(picture())}"]
    answer = draw(door, init_images=sent, include_init_images=True)
    assert answer.json()["parameters"]["init_images"] == sent


@pytest.mark.parametrize("images", [None, []])
def test_without_a_picture_there_is_nothing_to_draw_over(
    door: httpx.Client, images: list[str] | None
) -> None:
    answer = door.post("/img2img", json={"prompt": "x", "init_images": images})
    assert (answer.status_code, answer.json()["detail"]) == (404, "Init image not found")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("http://127.0.0.1/picture.png", "addresses are not fetched"),
        ("https://example.com/a.png", "addresses are not fetched"),
        ("aGVsbG8=", "is no PNG, JPEG or WebP"),
        ("%%%", "is not base64"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(door: httpx.Client, sent: str, said: str) -> None:
    answer = door.post("/img2img", json={"init_images": [sent]})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("Invalid encoded image: init_images")
    assert said in answer.json()["detail"]
    broken = door.post("/img2img", json={"init_images": [text(picture())], "mask": sent})
    assert "Invalid encoded image: mask" in broken.json()["detail"]


def test_only_the_first_picture_counts(door: httpx.Client) -> None:
    assert codes(draw(door, init_images=[text(picture())] * 2)) == {"init_images_ignored"}


def test_the_size_is_the_pictures_unless_it_is_said(door: httpx.Client, studio: Studio) -> None:
    draw(door, init_images=[text(picture(256, 128))])
    assert (studio.spec.width, studio.spec.height) == (256, 128)
    answer = draw(door, init_images=[text(picture(250, 130))])
    assert (studio.spec.width, studio.spec.height) == (248, 128)
    assert codes(answer) == {"size_adjusted"}
    draw(door, init_images=[text(picture(256, 128))], width=64, height=64)
    assert (studio.spec.width, studio.spec.height) == (64, 64)


def test_white_of_a_mask_is_drawn_again_around_the_mask_alone(
    door: httpx.Client, studio: Studio
) -> None:
    answer = draw(door, mask=text(mask()), inpaint_full_res_padding=16, mask_blur=0)
    spec = studio.spec
    assert (spec.task, spec.padding_mask_crop, spec.keep_outside) == (Task.INPAINTING, 16, True)
    _, stored = studio.uploads
    assert (stored.getpixel((10, 64)), stored.getpixel((120, 64))) == (255, 0)
    assert codes(answer) == set()


def test_the_whole_picture_is_drawn_where_it_is_said(door: httpx.Client, studio: Studio) -> None:
    draw(door, mask=text(mask()), inpaint_full_res=False, inpainting_fill=1)
    assert studio.spec.padding_mask_crop is None


def test_a_mask_is_inverted_before_it_is_blurred(door: httpx.Client, studio: Studio) -> None:
    draw(door, mask=text(mask()), inpainting_mask_invert=1)
    stored = studio.uploads[1]
    assert (stored.getpixel((10, 64)), stored.getpixel((120, 64))) == (0, 255)
    edge = stored.getpixel((64, 64))
    assert isinstance(edge, int)
    assert 0 < edge < 255, "4 pixels of blur, unless it is said"


def test_the_axes_of_a_mask_are_blurred_each_by_itself(door: httpx.Client, studio: Studio) -> None:
    draw(door, mask=text(mask()), mask_blur_x=0, mask_blur_y=9)
    assert set(studio.uploads[1].tobytes()) == {0, 255}, "its edge is a vertical one"


def test_a_mask_may_be_what_is_not_transparent(door: httpx.Client, studio: Studio) -> None:
    sheer = Image.new("RGBA", (128, 128), (255, 255, 255, 0))
    sheer.paste((0, 0, 0, 255), (0, 0, 64, 128))
    draw(door, mask=png(sheer), mask_blur=0)
    stored = studio.uploads[1]
    assert (stored.getpixel((10, 64)), stored.getpixel((120, 64))) == (255, 0)


def test_grey_of_a_mask_is_black_or_white_unless_it_may_stay(
    door: httpx.Client, studio: Studio
) -> None:
    grey = Image.new("L", (128, 128), 100)
    ImageDraw.Draw(grey).rectangle((0, 0, 63, 127), fill=200)
    draw(door, mask=png(grey), mask_blur=0)
    assert set(studio.uploads[-1].tobytes()) == {0, 255}
    draw(door, mask=png(grey), mask_blur=0, mask_round=False)
    assert set(studio.uploads[-1].tobytes()) == {100, 200}


def test_grey_of_sixteen_bits_is_scaled(door: httpx.Client, studio: Studio) -> None:
    deep = png(Image.new("I;16", (128, 128), 30_000))
    draw(door, mask=deep, mask_blur=0, mask_round=False, init_images=[deep], inpainting_fill=1)
    image, stored = studio.uploads
    assert (image.getpixel((0, 0)), stored.getpixel((0, 0))) == ((117, 117, 117), 117)


def test_a_mask_of_another_size_is_resized_with_a_word(door: httpx.Client, studio: Studio) -> None:
    assert codes(draw(door, mask=text(mask(64, 64)))) == {"mask_resized"}
    assert studio.uploads[1].size == (128, 128)


def test_a_mask_without_white_is_not_cropped_to(door: httpx.Client, studio: Studio) -> None:
    found = codes(draw(door, mask=png(Image.new("RGB", (128, 128)))))
    assert found == {"inpaint_full_res_ignored", "nothing_repainted"}
    assert studio.spec.padding_mask_crop is None


@pytest.mark.parametrize(
    ("fill", "strength", "found"),
    [(0, 0.5, set()), (1, 0.5, set()), (2, 1.0, set()), (3, 0.5, {"inpainting_fill_ignored"})],
)
def test_what_is_under_the_mask_at_first(
    door: httpx.Client, fill: int, strength: float, found: set[str]
) -> None:
    sent = {"mask": text(mask()), "inpainting_fill": fill, "denoising_strength": strength}
    assert codes(draw(door, **sent)) == found


def test_surroundings_grow_into_the_mask_and_are_as_they_were() -> None:
    image = Image.new("RGB", (96, 96), "red")
    hole = Image.new("L", (96, 96))
    image.paste("blue", (32, 32, 64, 64))
    hole.paste(255, (32, 32, 64, 64))
    image.putpixel((3, 3), (1, 2, 3))
    grown = surrounded(image, hole)
    middle = grown.getpixel((48, 48))
    assert isinstance(middle, tuple)
    assert middle[0] > 200
    assert middle[2] < 40
    assert grown.getpixel((3, 3)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("size", "top", "left"), [((96, 48), "blue", "red"), ((48, 96), "blue", "red")]
)
def test_a_picture_of_another_shape_has_its_edges_drawn_out(
    size: tuple[int, int], top: str, left: str
) -> None:
    image = Image.new("RGB", (96, 96), "red")
    image.paste("blue", (0, 0, 96, 40))
    made = shaped(image, size, 2)
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    assert made.size == size
    assert made.getpixel((size[0] // 2, 2)) == colours[top]
    assert made.getpixel((1, size[1] - 2)) == colours[left]


def test_a_picture_of_another_shape_is_cropped_in_its_middle() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    made = shaped(image, (96, 96), 1)
    assert made.getpixel((4, 4)) == made.getpixel((91, 91)) == (0, 0, 255)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_resize_modes(door: httpx.Client, studio: Studio, mode: int) -> None:
    wide = text(picture(256, 128))
    answer = draw(door, init_images=[wide], width=128, height=128, resize_mode=mode)
    assert studio.uploads[0].size == ((128, 128) if mode in (1, 2) else (256, 128))
    assert codes(answer) == ({"resize_mode_ignored"} if mode == 3 else set())


def card(**changes: Any) -> Card:
    return load_catalog()["sd-v1-5"].model_copy(update=changes)


def test_an_inpainting_checkpoint_draws_all_of_a_picture_without_a_mask() -> None:
    sent = PictureSent(init_images=[text(picture(512, 512))])
    found = painted(sent, card(tasks=(Task.INPAINTING,)))
    assert found.task is Task.INPAINTING
    drawn = Image.open(io.BytesIO(found.files["mask_image"]))
    assert (set(drawn.tobytes()), found.padding) == ({255}, None)


def test_a_depth_checkpoint_keeps_the_depth_of_a_picture() -> None:
    sent = PictureSent(init_images=[text(picture(512, 512))])
    assert painted(sent, card(tasks=(Task.DEPTH_TO_IMAGE,))).task is Task.DEPTH_TO_IMAGE


def test_no_picture_is_no_picture_whatever_the_card() -> None:
    with pytest.raises(NotFound, match="Init image not found"):
        painted(PictureSent(), card())
