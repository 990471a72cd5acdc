"""A picture drawn again by a real worker: from its record, its file and its infotext."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from server.recipe import looks_of
from tests.system.conftest import Served

DRAWN = {"prompt": "a red circle (on blue)", "seed": 5, "num_inference_steps": 4}
PREFER = {"Prefer": "wait=60"}


@pytest.fixture(scope="module")
def client(served: Served) -> Any:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def first(client: httpx.Client) -> dict[str, Any]:
    """A picture that was drawn alone."""
    return drawn(client, **DRAWN)["images"][0]


def drawn(client: httpx.Client, **body: Any) -> dict[str, Any]:
    record = client.post("/v1/generations", json=body, headers=PREFER).json()
    assert record["status"] == "succeeded", record
    return record


def replayed(client: httpx.Client, **body: Any) -> dict[str, Any]:
    headers = PREFER | body.pop("headers", {})
    answer = client.post("/v1/generations/replay", headers=headers, **body)
    assert answer.status_code == 200, answer.text
    record = answer.json()
    assert record["status"] == "succeeded", record
    return record


def test_a_manifest_draws_one_picture_of_several_again(client: httpx.Client) -> None:
    second = drawn(client, **DRAWN, num_images=2)["images"][1]
    manifest = client.get(second["manifest"]).json()
    assert manifest["pixels_sha256"] == second["pixels_sha256"]
    record = replayed(client, json=manifest)
    assert record["replay"]["alike"] is True  # it was drawn in company
    assert record["spec"]["seed"] == 6
    assert len(record["images"]) == 1


def test_another_picture_is_not_alike(client: httpx.Client, first: dict[str, Any]) -> None:
    manifest = client.get(first["manifest"]).json()
    manifest["spec"]["seed"] += 1
    again = replayed(client, json=manifest)["replay"]
    assert (again["equal"], again["alike"]) == (False, False)


def test_a_file_draws_the_same_picture_even_saved_again(
    client: httpx.Client, first: dict[str, Any]
) -> None:
    data = client.get(first["url"]).content
    headers = {"Content-Type": "image/png"}
    record = replayed(client, content=data, headers=headers)
    assert record["replay"]["equal"] is True
    assert record["images"][0]["sha256"] == first["sha256"]
    assert record["warnings"] == []
    with Image.open(io.BytesIO(data)) as opened:
        assert looks_of(opened).pixels_sha256 == first["pixels_sha256"]
        painted = opened.convert("RGB")
        painted.putpixel((0, 0), (0, 0, 0))
        text = opened.text  # type: ignore[attr-defined]
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("darkroom", text["darkroom"])
    out = io.BytesIO()
    painted.save(out, "PNG", pnginfo=about)
    record = replayed(client, content=out.getvalue(), headers=headers)
    assert record["replay"]["equal"] is True
    assert [warning["code"] for warning in record["warnings"]] == ["picture_changed"]


def test_an_infotext_draws_the_same_picture(client: httpx.Client, first: dict[str, Any]) -> None:
    with Image.open(io.BytesIO(client.get(first["url"]).content)) as opened:
        text = opened.text["parameters"]  # type: ignore[attr-defined]
    headers = {"Content-Type": "text/plain"}
    record = replayed(client, content=text, headers=headers)
    assert record["replay"] == {
        "expected": {"sha256": None, "pixels_sha256": None},
        "equal": None,
        "alike": None,
    }
    assert record["images"][0]["pixels_sha256"] == first["pixels_sha256"]
    assert record["warnings"] == []
    assert replayed(client, json={"infotext": text})["images"][0]["sha256"] == first["sha256"]


def test_what_began_with_a_picture_is_drawn_again_from_the_same(
    client: httpx.Client, first: dict[str, Any]
) -> None:
    data = client.get(first["url"]).content
    sent = {"request": (None, json.dumps({"prompt": "a green circle", "strength": 0.5}))}
    form = sent | {"task": (None, "image-to-image"), "image": ("a.png", data)}
    record = client.post("/v1/generations", files=form, headers=PREFER).json()
    assert record["status"] == "succeeded", record
    made = client.get(record["images"][0]["url"]).content
    refused = client.post("/v1/generations/replay", files={"image": ("b.png", made)})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "input"
    assert first["sha256"] in refused.json()["detail"]
    parts = {"image": ("b.png", made), "input": ("a.png", data)}
    assert replayed(client, files=parts)["replay"]["equal"] is True


def test_a_grid_draws_its_sweep_again(client: httpx.Client) -> None:
    body = {"prompt": "a red circle", "seed": 3, "sweep": {"num_inference_steps": [2, 3]}}
    record = drawn(client, **body)
    grid = client.get(record["grid"]["url"]).content
    again = replayed(client, content=grid, headers={"Content-Type": "image/png"})
    assert again["replay"]["alike"] is True
    assert len(again["images"]) == 2
