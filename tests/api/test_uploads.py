"""Pictures that are none, bodies that are forms, and who cuts them short."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.api.house import Hands, gateway
from tests.api.pictures import CARDS, body, mask, picture, text
from tests.redis_server import RedisServer


def animation() -> bytes:
    frames = [Image.new("RGB", (128, 128), (i * 80, 0, 0)) for i in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    return out.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes that claims to be 60000 pixels a side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif() -> bytes:
    out = io.BytesIO()
    Image.new("P", (128, 128)).save(out, "GIF")
    return out.getvalue()


BAD: dict[str, tuple[str, str]] = {
    "nothing": ("", "is no PNG"),
    "not base64": ("%%%", "not base64"),
    "cut base64": (text(picture())[:-3], "not base64"),
    "an address": ("https://example.org/a.png", "not fetched"),
    "a file's address": ("file:///etc/passwd", "not fetched"),
    "text in base64": (text(b"hello there"), "is no PNG"),
    "a data URI of text": (f"data:text/plain;base64,{text(picture())}", "data URI of text/plain"),
    "a data URI of SVG": ("data:image/svg+xml;base64,PHN2Zy8+", "data URI of image/svg+xml"),
    "a data URI in percents": ("data:image/png,%89PNG", "not in base64"),
    "a data URI without an end": ("data:image/png;base64", "data URI"),
    "half a PNG": (text(picture(256, 256, compress_level=0)[:5000]), "cannot be decoded"),
    "half a JPEG": (text(picture(256, 256, "JPEG")[:700]), "cannot be decoded"),
    "an animation": (text(animation()), "is an animation"),
    "a bomb": (text(bomb()), "pixels"),
    "a GIF": (text(gif()), "is no PNG, JPEG or WebP"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_picture_is_refused_by_the_name_of_its_field(
    atelier: httpx.Client, painter: Hands, case: str
) -> None:
    sent, word = BAD[case]
    for field in ("image", "mask_image"):
        pictures = {"image": text(picture()), "mask_image": text(mask())} | {field: sent}
        answer = atelier.post("/v1/generations", json=body(task="inpainting", **pictures))
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec"), answer.text
        [error] = answer.json()["errors"]
        assert error["field"] == field
        assert word in error["message"]
        assert len(answer.content) < 2000, "the input is not echoed"
    assert painter.queued("any") == 0
    assert painter.kept() == []


def test_the_first_picture_of_a_photograph_that_holds_two_counts(atelier: httpx.Client) -> None:
    smaller = Image.new("RGB", (64, 64))
    sent = picture(form="MPO", save_all=True, append_images=[smaller])
    answer = atelier.post("/v1/generations", json=body(task="image-to-image", image=sent))
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["image"]["width"] == 128


def test_every_picture_that_is_none_is_named(atelier: httpx.Client) -> None:
    sent = body(task="inpainting", image="%", mask_image="%")
    errors = atelier.post("/v1/generations", json=sent).json()["errors"]
    assert [error["field"] for error in errors] == ["image", "mask_image"]


@pytest.mark.parametrize("value", [1, True, [], {"url": "x"}, ["a"]])
def test_a_picture_of_another_type_is_refused(atelier: httpx.Client, value: Any) -> None:
    answer = atelier.post("/v1/generations", json=body(task="image-to-image", image=value))
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["errors"][0]["field"].startswith("image")


FIELDS = {"checkpoint": "any", "task": "image-to-image", "prompt": "a boat", "strength": 0.5}


def test_a_form_is_one_part_of_json_and_the_files(atelier: httpx.Client, painter: Hands) -> None:
    parts = {
        "request": (None, json.dumps(FIELDS | {"task": "inpainting"}), "application/json"),
        "image": ("photo.jpg", picture(form="JPEG"), "image/jpeg"),
        "mask_image": ("mask.png", mask(), "image/png"),
    }
    answer = atelier.post("/v1/generations", files=parts)
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["strength"] == 0.5
    assert painter.kept() == ["input-image.jpg", "input-mask.png"]


def test_a_form_may_have_a_part_for_each_field(atelier: httpx.Client) -> None:
    parts = {
        "checkpoint": "any",
        "task": "image-to-image",
        "prompt": "1984",
        "strength": "0.5",
        "sampler": "euler",
        "num_images": "2",
        "keep": None,
        "negative_prompt": "",
        "seed": "",
        "loras": '[{"name": "ink"}]',
    }
    fields = {name: value for name, value in parts.items() if value is not None}
    files = {"image": ("a.png", picture()), "mask_image": ("", b"")}
    answer = atelier.post("/v1/generations", data=fields, files=files)
    assert answer.status_code == 202, answer.text
    spec = answer.json()["spec"]
    assert (spec["prompt"], spec["strength"], spec["num_images"]) == ("1984", 0.5, 2)
    assert (spec["negative_prompt"], spec["sampler"]) == ("", "euler")
    assert spec["loras"] == [{"name": "ink", "scale": 1.0}]


def test_a_form_without_files_is_a_request_too(atelier: httpx.Client) -> None:
    parts = {"request": (None, '{"prompt": "a boat", "checkpoint": "any"}')}
    assert atelier.post("/v1/generations", files=parts).status_code == 202


REQUEST = (None, json.dumps(FIELDS))
IMAGE = ("a.png", picture())
FORMS: dict[str, tuple[list[tuple[str, Any]], int, str]] = {
    "no JSON in the part": ([("request", (None, "{"))], 400, "bad_request"),
    "a list in the part": ([("request", (None, "[]"))], 422, "invalid_request"),
    "deep nesting": ([("request", (None, "[" * 100_000))], 400, "bad_request"),
    "deep nesting in a field": ([("hires", (None, "[" * 100_000))], 422, "invalid_request"),
    "NaN": ([("request", (None, '{"prompt": "a", "eta": NaN}'))], 400, "bad_request"),
    "a name twice in the JSON": (
        [("request", (None, '{"prompt": "a", "prompt": "b"}'))],
        422,
        "invalid_request",
    ),
    "a hundred thousand names in the JSON, and one twice": (
        [("request", (None, json.dumps({str(i): 0 for i in range(100_000)})[:-1] + ', "9": 1}'))],
        422,
        "invalid_request",
    ),
    "a long name twice in the JSON": (
        [("request", (None, '{"X": 1, "X": 2}'.replace("X", "a" * 9000)))],
        422,
        "invalid_request",
    ),
    "a field beside the JSON again": (
        [("request", REQUEST), ("image", IMAGE), ("prompt", (None, "b"))],
        422,
        "invalid_request",
    ),
    "a file twice": (
        [("request", REQUEST), ("image", IMAGE), ("image", IMAGE)],
        422,
        "invalid_request",
    ),
    "a file and its base64": (
        [("request", (None, json.dumps(FIELDS | {"image": "aa"}))), ("image", IMAGE)],
        422,
        "invalid_request",
    ),
    "an unknown file": (
        [("request", REQUEST), ("image", IMAGE), ("init_image", IMAGE)],
        422,
        "invalid_request",
    ),
    "a file for a number": ([("request", REQUEST), ("seed", ("a", b"7"))], 422, "invalid_request"),
    "an unknown field": ([("prompt", (None, "a")), ("steps", (None, "4"))], 422, "invalid_request"),
    "a word for a number": (
        [("prompt", (None, "a")), ("seed", (None, "x"))],
        422,
        "invalid_request",
    ),
    "no prompt": ([("image", IMAGE)], 422, "invalid_request"),
    "a file that is no picture": (
        [("request", REQUEST), ("image", ("a.png", b"hello"))],
        422,
        "invalid_spec",
    ),
    "two hundred parts": ([(f"p{i}", (None, "1")) for i in range(200)], 400, "bad_request"),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_form_that_cannot_be_read_is_refused(
    atelier: httpx.Client, painter: Hands, case: str
) -> None:
    parts, status, code = FORMS[case]
    answer = atelier.post("/v1/generations", files=parts)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert len(answer.content) < 4000
    assert painter.queued("any") == 0
    assert painter.kept() == []


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"nothing of the kind"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: a\r\n\r\nb\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x; charset=klingon", b"--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"prompt": "cu',
        ),
    ],
)
def test_what_is_no_form_is_refused(atelier: httpx.Client, kind: str, sent: bytes) -> None:
    answer = atelier.post("/v1/generations", content=sent, headers={"Content-Type": kind})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


PROMPT = b'Content-Disposition: form-data; name="prompt"\r\n\r\n'


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n--x", b"\r\n--x\r\n", b"\r\n--x-"])
def test_a_form_that_ends_before_its_closing_boundary_is_refused(
    atelier: httpx.Client, painter: Hands, end: bytes
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    sent = b"--x\r\n" + PROMPT + b"a boat" + end
    answer = atelier.post("/v1/generations", content=sent, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "closing boundary" in answer.json()["detail"]
    whole = b"--x\r\n" + PROMPT + b"a boat\r\n--x--"
    assert atelier.post("/v1/generations", content=whole, headers=headers).status_code == 202


def test_text_in_a_form_that_is_not_utf8_is_refused_by_the_name_of_its_field(
    atelier: httpx.Client,
) -> None:
    kind = "multipart/form-data; boundary=x"
    sent = b"--x\r\n" + PROMPT + "ein grüner Kreis".encode("latin-1") + b"\r\n--x--\r\n"
    answer = atelier.post("/v1/generations", content=sent, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"] == [
        {"field": "prompt", "message": "prompt: is not text in UTF-8"}
    ]
    declared = {"Content-Type": f"{kind}; charset=latin-1"}
    answer = atelier.post("/v1/generations", content=sent, headers=declared)
    assert answer.json()["spec"]["prompt"] == "ein grüner Kreis"


def test_the_same_form_again_is_a_replay_whatever_its_boundary(
    atelier: httpx.Client, painter: Hands
) -> None:
    headers = {"Idempotency-Key": "form"}
    parts = {"request": REQUEST, "image": IMAGE}
    first, second = (
        atelier.post("/v1/generations", files=parts, headers=headers) for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"]
    other = parts | {"image": ("a.png", picture(136))}
    third = atelier.post("/v1/generations", files=other, headers=headers)
    assert third.json()["code"] == "idempotency_conflict"
    assert painter.kept() == ["input-image.png"]


def test_a_form_that_is_too_large_is_413(
    server: RedisServer, tmp_path: Path, painter: Hands
) -> None:
    with gateway(server.url, tmp_path, max_body_bytes=50_000) as client:
        answer = client.post("/v1/generations", files={"image": ("a.png", b"a" * 60_000)})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_names_are_looked_up_where_the_models_can_be_seen(
    server: RedisServer, tmp_path: Path, painter: Hands
) -> None:
    for name in ("Lora/pixel-art.safetensors", "VAE/sharper.safetensors", "Lora/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "cards.toml").write_text(CARDS)
    with gateway(
        server.url, tmp_path, catalog=tmp_path / "cards.toml", models_dir=tmp_path
    ) as client:
        good = body(loras=[{"name": "pixel-art"}], vae="sharper")
        assert client.post("/v1/generations", json=good).status_code == 202
        bad = body(loras=[{"name": "pixel-artt"}, {"name": "notes"}], vae="blunt")
        errors = client.post("/v1/generations", json=bad).json()["errors"]
        assert [error["field"] for error in errors] == ["loras.0.name", "loras.1.name", "vae"]
        assert "did you mean pixel-art?" in errors[0]["message"]
        seen = client.get("/v1/capabilities").json()
        assert (seen["loras"], seen["vaes"]) == (["pixel-art"], ["sharper"])
