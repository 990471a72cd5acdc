"""Pictures made larger, and pictures read."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from redis import Redis

from server.spec import Task
from tests.api.a1111.conftest import Studio
from tests.api.pictures import picture, text


def larger(door: httpx.Client, **fields: Any) -> tuple[Image.Image, httpx.Response]:
    answer = door.post("/extra-single-image", json={"image": text(picture())} | fields)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["image"]))), answer


def test_none_leaves_the_picture_as_it_is(door: httpx.Client, studio: Studio) -> None:
    assert larger(door, upscaling_resize=2)[0].size == (128, 128)
    assert larger(door, upscaler_1="None")[0].size == (128, 128)
    assert studio.specs == []


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (256, 256)),
        ({"upscaling_resize": 1.5}, (192, 192)),
        ({"resize_mode": 1, "upscaling_resize_w": 200, "upscaling_resize_h": 100}, (200, 100)),
        (
            {
                "resize_mode": 1,
                "upscaling_resize_w": 200,
                "upscaling_resize_h": 100,
                "upscaling_crop": False,
            },
            (200, 200),
        ),
    ],
)
@pytest.mark.parametrize("upscaler", ["Lanczos", "Nearest"])
def test_pillow_makes_it_as_large_as_asked(
    door: httpx.Client, studio: Studio, fields: dict[str, Any], size: tuple[int, int], upscaler: str
) -> None:
    image, answer = larger(door, upscaler_1=upscaler, **fields)
    assert image.size == size
    assert image.getpixel((50, 50)) == (200, 20, 20)
    assert "darkroom-warnings" not in answer.headers
    assert studio.specs == []


def test_a_checkpoint_that_upscales_draws_it(door: httpx.Client, studio: Studio) -> None:
    image, answer = larger(door, upscaler_1="x4", upscaling_resize=2)
    assert (studio.spec.task, studio.spec.width) == (Task.UPSCALE, 512)
    assert image.size == (256, 256)
    assert image.getpixel((50, 50)) == (0, 200, 20), "the worker's, not ours"
    assert "darkroom-warnings" not in answer.headers
    assert "x4" in answer.json()["html_info"]


def test_an_upscaler_that_is_not_here_is_replaced_with_a_word(
    door: httpx.Client, studio: Studio, redis: Redis
) -> None:
    _, answer = larger(door, upscaler_1="R-ESRGAN 4x+")
    assert studio.spec.checkpoint == "x4"
    assert answer.headers["darkroom-warnings"] == "upscaler_1_ignored"
    redis.delete("darkroom:worker:painter of x4")
    _, answer = larger(door, upscaler_1="R-ESRGAN 4x+")
    assert "Lanczos" in answer.json()["html_info"]
    assert len(studio.specs) == 1


def test_a_picture_too_large_to_draw_is_resized(door: httpx.Client, studio: Studio) -> None:
    image, answer = larger(door, image=text(picture(640, 640)), upscaler_1="x4")
    assert image.size == (1280, 1280)
    assert studio.specs == []
    assert answer.headers["darkroom-warnings"] == "upscaler_1_ignored"


def test_what_would_be_far_too_large_is_refused(door: httpx.Client) -> None:
    sent = {"image": text(picture(2000, 2000)), "upscaler_1": "Lanczos", "upscaling_resize": 16}
    answer = door.post("/extra-single-image", json=sent)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")


def test_what_other_models_would_do_is_named(door: httpx.Client) -> None:
    _, answer = larger(
        door,
        upscaler_1="Lanczos",
        upscaler_2="Nearest",
        extras_upscaler_2_visibility=0.5,
        gfpgan_visibility=1,
    )
    named = {
        "upscaler_2_ignored",
        "extras_upscaler_2_visibility_ignored",
        "gfpgan_visibility_ignored",
    }
    assert set(answer.headers["darkroom-warnings"].split(", ")) == named


def test_a_picture_keeps_what_it_says_of_itself(door: httpx.Client) -> None:
    out, about = io.BytesIO(), PngInfo()
    about.add_itxt("parameters", "a red circle\nSteps: 4, Sampler: Euler, Seed: 1")
    Image.new("RGB", (64, 64)).save(out, "PNG", pnginfo=about)
    image, _ = larger(door, image=text(out.getvalue()), upscaler_1="Lanczos")
    assert image.info["parameters"].startswith("a red circle")
    assert image.info["postprocessing"] == "Lanczos, 64x64 to 128x128"


def test_pictures_that_are_too_much_together_are_refused(
    door: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.a1111.extras.MOST_CHARACTERS", 1000)
    sent = [{"data": text(picture())}] * 16
    answer = door.post("/extra-batch-images", json={"imageList": sent, "upscaler_1": "Lanczos"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert "send fewer at once" in answer.json()["detail"]


def test_several_pictures_come_back_in_order(door: httpx.Client) -> None:
    sizes = [(64, 64), (128, 64)]
    sent = [{"data": text(picture(*size)), "name": "x"} for size in sizes]
    answer = door.post("/extra-batch-images", json={"imageList": sent, "upscaler_1": "Lanczos"})
    found = [Image.open(io.BytesIO(base64.b64decode(each))) for each in answer.json()["images"]]
    assert [image.size for image in found] == [(128, 128), (256, 128)]


@pytest.mark.parametrize("route", ["/extra-single-image", "/png-info"])
@pytest.mark.parametrize("image", [None, "", "aGVsbG8=", "http://127.0.0.1/a.png"])
def test_what_is_no_picture_is_refused(door: httpx.Client, route: str, image: str | None) -> None:
    answer = door.post(route, json={"image": image, "upscaler_1": "Lanczos"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("Invalid encoded image: image ")


@pytest.mark.parametrize("packed", [False, True])
def test_a_picture_that_says_far_too_much_is_refused(door: httpx.Client, packed: bool) -> None:
    out, about = io.BytesIO(), PngInfo()
    about.add_text("parameters", "a:b," * 10**6, zip=packed)
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=about)
    answer = door.post("/png-info", json={"image": text(out.getvalue())})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert answer.json()["detail"].startswith("Invalid encoded image: ")


def test_a_picture_that_says_nothing_is_read_too(door: httpx.Client) -> None:
    found = door.post("/png-info", json={"image": text(picture())}).json()
    assert found == {"info": "", "items": {}, "parameters": {}}


def test_loras_are_listed_where_the_gateway_sees_them(start: Any, tmp_path: Any) -> None:
    for name in ("Lora/pixel-art.safetensors", "VAE/sharper.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    client = start(models_dir=tmp_path)
    [lora] = client.get("/sdapi/v1/loras").json()
    assert (lora["name"], lora["alias"], lora["path"]) == ("pixel-art",) * 3
    assert client.get("/sdapi/v1/sd-vae").json() == [
        {"model_name": "sharper", "filename": "sharper"}
    ]


def test_models_are_those_that_are_served(start: Any, redis: Redis) -> None:
    client = start()
    titles = [each["title"] for each in client.get("/sdapi/v1/sd-models").json()]
    assert titles == ["demo"]
    redis.flushall()
    titles = [each["title"] for each in client.get("/sdapi/v1/sd-models").json()]
    assert "sd-v1-5" in titles
    assert "sd-x4-upscaler" not in titles


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("refresh-checkpoints", None),
        ("refresh-vae", None),
        ("refresh-embeddings", None),
        ("refresh-loras", None),
        ("unload-checkpoint", {}),
        ("reload-checkpoint", {}),
    ],
)
def test_what_needs_no_doing_is_done(door: httpx.Client, path: str, body: Any) -> None:
    answer = door.post(f"/{path}")
    assert (answer.status_code, answer.json()) == (200, body)


@pytest.mark.parametrize("path", ["server-kill", "server-restart", "train/embedding", "nothing"])
def test_what_is_not_offered_is_not_there(door: httpx.Client, path: str) -> None:
    answer = door.post(f"/{path}", json={})
    assert (answer.status_code, answer.json()["error"]) == (404, "HTTPException")
