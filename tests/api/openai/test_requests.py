"""What may be said at this door, how it is understood, and that nothing is dropped in silence."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from server.api.examples import REQUESTS
from server.api.openai import examples
from server.catalog import load_catalog
from server.spec import Task
from tests.api.house import Hands
from tests.api.openai.conftest import Artist, cleared
from tests.api.pictures import mask, picture, text

GENERATIONS, EDITS, VARIATIONS = (
    f"/v1/images/{name}" for name in ("generations", "edits", "variations")
)


def uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{text(data)}"


def ask(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post(GENERATIONS, json={"prompt": "a red circle"} | fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def codes(answer: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in answer["warnings"]]


def refused(answer: httpx.Response) -> tuple[int, str | None, str]:
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


def hollow() -> bytes:
    """A picture with a hole in its left half."""
    out = io.BytesIO()
    Image.merge(
        "RGBA",
        (*Image.open(io.BytesIO(picture())).split(), Image.open(io.BytesIO(cleared())).split()[3]),
    ).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "drawn", "warned"),
    [
        ("auto", (128, 128), []),
        (None, (128, 128), []),
        ("", (128, 128), []),
        ("256x192", (256, 192), []),
        ("1024x1024", (512, 512), ["size_adjusted"]),
        ("1536x1024", (512, 336), ["size_adjusted"]),
        ("250x130", (248, 128), ["size_adjusted"]),
        ("16x16", (64, 64), ["size_adjusted"]),
    ],
)
def test_a_size_is_drawn_or_the_nearest_one_is_and_both_are_named(
    client: httpx.Client,
    artist: Artist,
    size: str | None,
    drawn: tuple[int, int],
    warned: list[str],
) -> None:
    answer = ask(client, size=size)
    assert (artist.spec["width"], artist.spec["height"]) == drawn
    assert answer["size"] == f"{drawn[0]}x{drawn[1]}"
    assert codes(answer) == warned
    if warned:
        message = answer["warnings"][0]["message"]
        assert str(size) in message
        assert answer["size"] in message


def test_what_this_door_warns_of_is_in_the_record_too(client: httpx.Client, artist: Artist) -> None:
    ask(client, size="1024x1024", style="vivid")
    record = client.get("/v1/generations").json()["generations"][0]
    assert {"size_adjusted", "style_ignored"} <= {warn["code"] for warn in record["warnings"]}


def test_an_edit_of_what_is_too_large_is_drawn_smaller_and_says_so(
    client: httpx.Client, artist: Artist
) -> None:
    files = {"image": ("in.png", picture(1200, 800))}
    answer = client.post(EDITS, data={"prompt": "a star", "size": "auto"}, files=files).json()
    assert (artist.spec["width"], artist.spec["height"]) == (512, 336)
    assert codes(answer) == ["size_adjusted"]
    assert "1200x800" in answer["warnings"][0]["message"]


def test_a_photograph_is_measured_as_it_is_seen(client: httpx.Client, artist: Artist) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = picture(1200, 800, "JPEG", exif=exif)
    answer = client.post(EDITS, data={"prompt": "a star"}, files={"image": ("in.jpg", turned)})
    assert answer.status_code == 200, answer.text
    assert (artist.spec["width"], artist.spec["height"]) == (336, 512)


@pytest.mark.parametrize(
    "fields",
    [
        {"quality": "hd"},
        {"style": "vivid"},
        {"background": "transparent"},
        {"moderation": "low"},
        {"user": "user-81"},
        {"safety_identifier": "8181"},
        {"input_fidelity": "high"},
        {"output_compression": 80},
        {"partial_images": 2},
    ],
)
def test_what_has_no_meaning_here_is_named(
    client: httpx.Client, artist: Artist, fields: dict[str, Any]
) -> None:
    answer = client.post(GENERATIONS, json={"prompt": "a red circle"} | fields)
    [field] = fields
    assert [warning["field"] for warning in answer.json()["warnings"]] == [field]
    assert answer.headers["darkroom-warnings"] == f"{field}_ignored"


def test_what_leaves_it_to_us_is_no_warning(client: httpx.Client, artist: Artist) -> None:
    answer = ask(client, quality="auto", background="opaque", moderation="auto", style=None)
    assert answer["warnings"] == []
    assert ask(client, background="auto", partial_images=0, model="")["warnings"] == []


def test_what_the_native_door_warns_of_is_warned_of_here(
    client: httpx.Client, artist: Artist
) -> None:
    answer = client.post(GENERATIONS, json={"prompt": "a", "eta": 0.5, "quality": "low"})
    assert codes(answer.json()) == ["quality_ignored", "eta_ignored"]
    assert answer.headers["darkroom-warnings"] == "quality_ignored, eta_ignored"
    id = answer.headers["darkroom-generation-id"]
    assert id == answer.json()["id"]
    assert client.get(f"/v1/generations/{id}").json()["status"] == "succeeded"


def test_an_address_is_that_of_the_request(client: httpx.Client, artist: Artist) -> None:
    headers = {"Host": "pictures.example:81"}
    body = {"prompt": "a red circle", "response_format": "url"}
    answer = client.post(GENERATIONS, json=body, headers=headers)
    [image] = answer.json()["data"]
    assert image["url"] == (f"http://pictures.example:81/v1/generations/{artist.drawn[0]}/images/0")


@pytest.mark.parametrize("count", [1, 2])
def test_an_edit_may_be_json(client: httpx.Client, artist: Artist, count: int) -> None:
    body = {
        "prompt": "a star",
        "images": [{"image_url": uri(picture())}] * count,
        "mask": {"image_url": uri(cleared())},
    }
    answer = client.post(EDITS, json=body)
    assert answer.status_code == 200, answer.text
    assert codes(answer.json()) == ["images_ignored"] * (count - 1)
    assert artist.spec["task"] == Task.INPAINTING


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({}, "image", "needs one"),
        ({"images": []}, "images", "at least 1"),
        ({"images": [{}]}, "images.0", "image_url: is required"),
        ({"images": [{"file_id": "file-81"}]}, "images.0", "no files are kept here"),
        ({"images": [{"image_url": "https://example.com/a.png"}]}, "image", "not fetched"),
        ({"images": [{"image_url": uri(picture())}] * 17}, "images", "at most 16"),
    ],
)
def test_an_edit_without_a_picture_is_refused(
    client: httpx.Client, fields: dict[str, Any], param: str, says: str
) -> None:
    found = refused(client.post(EDITS, json={"prompt": "a star"} | fields))
    assert found[:2] == (400, param)
    assert says in found[2]


def test_a_mask_is_as_soft_as_it_was_painted(
    client: httpx.Client, hands: Hands, artist: Artist
) -> None:
    soft = io.BytesIO()
    Image.new("LA", (128, 128), (0, 55)).save(soft, "PNG")
    files = {"image": picture(), "mask": soft.getvalue()}
    assert client.post(EDITS, data={"prompt": "a star"}, files=files).status_code == 200
    with Image.open(hands.images / artist.drawn[0] / "input-mask.png") as seen:
        assert seen.getpixel((5, 5)) == 200


def test_a_mask_of_another_size_is_refused_in_this_doors_words(client: httpx.Client) -> None:
    files = {"image": picture(), "mask": cleared(64, 64)}
    status, param, message = refused(client.post(EDITS, data={"prompt": "a star"}, files=files))
    assert (status, param) == (400, "mask")
    assert message.startswith("mask: has 64 x 64 pixels")


def test_a_mask_without_a_hole_is_refused(client: httpx.Client) -> None:
    whole = io.BytesIO()
    Image.new("RGBA", (128, 128), "red").save(whole, "PNG")
    files = {"image": picture(), "mask": whole.getvalue()}
    found = refused(client.post(EDITS, data={"prompt": "a star"}, files=files))
    assert found[:2] == (400, "mask")
    assert "has nothing transparent" in found[2]


def test_a_picture_without_a_hole_is_drawn_over_by_dall_e_2_too(
    client: httpx.Client, artist: Artist
) -> None:
    whole = io.BytesIO()
    Image.new("RGBA", (128, 128), "red").save(whole, "PNG")
    data = {"prompt": "a star", "model": "dall-e-2"}
    assert client.post(EDITS, data=data, files={"image": whole.getvalue()}).status_code == 200
    assert artist.spec["task"] == "image-to-image"


@pytest.mark.parametrize(
    ("model", "task"), [("dall-e-2", Task.INPAINTING), ("gpt-image-1", Task.IMAGE_TO_IMAGE)]
)
def test_only_dall_e_2_takes_a_pictures_own_hole_for_its_mask(
    client: httpx.Client, artist: Artist, model: str, task: Task
) -> None:
    data = {"prompt": "a star", "model": model}
    answer = client.post(EDITS, data=data, files={"image": ("in.png", hollow())})
    assert answer.status_code == 200, answer.text
    assert artist.spec["task"] == task


def test_the_task_may_be_said(atelier: httpx.Client, painter: Hands, redis: Any) -> None:
    artist = Artist(painter, redis)
    artist.begin()
    try:
        data = {"prompt": "a star", "model": "any", "task": "depth-to-image"}
        answer = atelier.post(EDITS, data=data, files={"image": ("in.png", picture())})
    finally:
        artist.end()
    assert answer.status_code == 200, answer.text
    assert artist.spec["task"] == "depth-to-image"


FORM = [("prompt", "a star"), ("image", picture())]


@pytest.mark.parametrize(
    ("parts", "param", "says"),
    [
        ([("prompt", "again")], "prompt", "more than once"),
        ([("mask", cleared()), ("mask", cleared())], "mask", "more than once"),
        ([("photo", picture())], "photo", "is no file here"),
        ([("image[]", picture())] * 16, "image", "at most 16"),
        ([("mask_image", mask()), ("mask", cleared())], "mask", "send one of them"),
        ([("n", "many")], "n", "valid integer"),
        ([("colour", "red")], "colour", "there is no such field"),
        ([("hires[scale]", "2"), ("hires", "{}")], "hires", "more than once"),
        ([("hires[a][b]", "2")], "hires", "send it as JSON text"),
        ([("hires[scale]", "2"), ("hires[scale][]", "2")], "hires", "more than once"),
        ([("loras", "[1]"), ("loras[][name]", "a")], "loras", "more than once"),
        ([("loras[]", "1"), ("loras[][name]", "a")], "loras", "more than once"),
        ([("loras[a]", "1"), ("loras[]", "a")], "loras", "send it as JSON text"),
        ([("loras[][name]", "a"), ("loras[name]", "a")], "loras", "more than once"),
        ([("loras[a]", "1"), ("loras[][name]", "a")], "loras", "more than once"),
        ([("hires[[scale]", "2")], "hires[[scale]", "there is no such field"),
        (
            [("loras[][name]", "a"), ("loras[][name]", "b"), ("loras[][scale]", "1")],
            "loras",
            "cannot be told apart",
        ),
    ],
)
def test_a_form_that_cannot_be_read_is_refused_by_the_name_of_its_part(
    client: httpx.Client, parts: list[tuple[str, Any]], param: str, says: str
) -> None:
    files = [
        (name, ("file", value) if isinstance(value, bytes) else (None, value))
        for name, value in (*FORM, *parts)
    ]
    found = refused(client.post(EDITS, files=files))
    assert found[:2] == (400, param)
    assert says in found[2]


def test_lists_and_objects_of_a_form_arrive(client: httpx.Client, artist: Artist) -> None:
    loras = [{"name": "a", "scale": 0.5}, {"name": "b", "scale": 1.0}]
    image = {"image": ("in.png", picture())}
    in_brackets = {
        "prompt": "a star",
        "loras[][name]": ["a", "b"],
        "loras[][scale]": ["0.5", "1"],
        "hires[scale]": "2",
    }
    as_json = {"prompt": "a star", "loras": json.dumps(loras), "hires": '{"scale": 2}'}
    for data in (in_brackets, as_json):
        answer = client.post(EDITS, data=data, files=image)
        assert answer.status_code == 200, answer.text
        assert artist.spec["loras"] == loras
        assert artist.spec["hires"]["width"] == 256


@pytest.mark.parametrize("path", [GENERATIONS, EDITS, VARIATIONS])
def test_a_body_that_is_neither_json_nor_a_form_is_refused(client: httpx.Client, path: str) -> None:
    headers = {"Content-Type": "text/plain"}
    assert client.post(path, content=b"a red circle", headers=headers).status_code == 415
    headers = {"Content-Type": "application/json"}
    assert client.post(path, content=b"{", headers=headers).status_code == 400
    headers = {"Content-Type": "multipart/form-data"}
    assert client.post(path, content=b"", headers=headers).status_code == 400


@pytest.mark.parametrize("example", [examples.GENERATE, examples.STREAM, examples.EDIT])
def test_every_example_of_a_request_is_drawn_without_a_warning(
    client: httpx.Client, artist: Artist, example: dict[str, Any]
) -> None:
    path = EDITS if "images" in example else GENERATIONS
    answer = client.post(path, json=example)
    assert answer.status_code == 200, answer.text
    if example.get("stream"):
        assert "event: image_generation.completed\n" in answer.text
    else:
        assert answer.json()["warnings"] == []
        assert base64.b64decode(answer.json()["data"][0]["b64_json"]) == picture()


@pytest.mark.parametrize("name", REQUESTS)
def test_every_field_of_a_generation_passes_this_door_unchanged(
    client: httpx.Client, hands: Hands, artist: Artist, name: str
) -> None:
    for checkpoint in load_catalog():
        hands.serve(checkpoint, name=f"hands of {checkpoint}")
    asked = {"seed": 7} | REQUESTS[name]
    path = EDITS if "image" in asked else GENERATIONS
    answer = client.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    native = client.post("/v1/generations", json=asked).json()
    here = client.get(f"/v1/generations/{answer.json()['id']}").json()
    assert here["spec"] == native["spec"]


def test_a_sweep_is_answered_without_its_grid(
    client: httpx.Client, hands: Hands, soon_with_id: Any, artist: Artist
) -> None:
    artist.free.clear()
    with soon_with_id(lambda id: hands.succeed(id, b"one", b"two", b"grid", grid=True)):
        answer = ask(client, sweep={"seed": [1, 2]})
    assert [base64.b64decode(image["b64_json"]) for image in answer["data"]] == [b"one", b"two"]


def test_tokens_that_cannot_be_counted_are_left_out(
    start: Callable[..., httpx.Client], tmp_path: Path, hands: Hands, artist: Artist
) -> None:
    cards = tmp_path / "cards.toml"
    cards.write_text('[checkpoints.far]\nextends = "demo"\nsource = "/not/on/this/host"\n')
    hands.serve("far", name="another")
    assert "usage" not in ask(start(catalog=cards), model="far")


def test_an_enlargement_has_the_size_that_it_has(atelier: httpx.Client, painter: Hands) -> None:
    image = {"image": ("in.png", picture(64, 64))}
    data = {"prompt": "a star", "model": "x4", "task": "upscale", "size": "512x512"}
    status, param, message = refused(atelier.post(EDITS, data=data, files=image))
    assert (status, param) == (400, "width")
    assert "4 times the size of its image, here 256" in message


def test_a_variation_may_name_its_task_and_still_needs_no_prompt(
    client: httpx.Client, artist: Artist
) -> None:
    parts = {
        "image": ("a.png", picture()),
        "task": (None, "image-to-image"),
    }
    answer = client.post(VARIATIONS, files=parts)
    assert answer.status_code == 200, answer.text
    assert (artist.spec["task"], artist.spec["prompt"]) == ("image-to-image", "")
