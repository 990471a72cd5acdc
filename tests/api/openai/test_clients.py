"""Requests as programs that are not on PyPI send them, answered as each of them needs."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tests.api.openai.conftest import Artist, cleared
from tests.api.pictures import picture

OF_A_JAVASCRIPT_SDK = {
    "Authorization": "Bearer none-needed",
    "Accept": "application/json",
    "User-Agent": "OpenAI/JS 5.20.0",
    "X-Stainless-Lang": "js",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Timeout": "600",
}


def pictures_of(answer: httpx.Response) -> list[bytes]:
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(image["b64_json"]) for image in answer.json()["data"]]


def codes(answer: httpx.Response) -> set[str]:
    return {warning["code"] for warning in answer.json()["warnings"]}


def test_librechat_draws(client: httpx.Client, artist: Artist) -> None:
    body = {
        "model": "gpt-image-1",
        "prompt": "a red circle on a blue background",
        "n": 1,
        "background": "auto",
        "response_format": "b64_json",
        "output_format": "png",
        "output_compression": 100,
        "quality": "auto",
        "size": "auto",
    }
    answer = client.post("/v1/images/generations", json=body, headers=OF_A_JAVASCRIPT_SDK)
    assert pictures_of(answer) == [picture()]
    assert codes(answer) == {"model_substituted", "output_compression_ignored"}


def test_librechat_edits_several_pictures(client: httpx.Client, artist: Artist) -> None:
    data = {
        "model": "gpt-image-1",
        "prompt": "a star",
        "quality": "auto",
        "size": "auto",
        "response_format": "b64_json",
        "output_format": "webp",
    }
    files = [("image[]", (f"{i}.png", picture(), "image/png")) for i in range(2)]
    answer = client.post("/v1/images/edits", data=data, files=files)
    assert pictures_of(answer) == [picture(form="WEBP")]
    assert answer.json()["output_format"] == "webp"
    assert codes(answer) == {"model_substituted", "images_ignored"}
    assert artist.spec["task"] == "image-to-image"


@pytest.mark.parametrize("model", ["demo", "dall-e-2", ""])
def test_open_webui_draws(client: httpx.Client, artist: Artist, model: str) -> None:
    of_its_settings = {"num_inference_steps": 9}
    body = of_its_settings | {
        "model": model,
        "prompt": "a red circle",
        "n": 2,
        "size": "256x256",
        "response_format": "b64_json",
    }
    answer = client.post("/v1/images/generations?api-version=2025-04-01-preview", json=body)
    assert len(pictures_of(answer)) == 2
    assert (artist.spec["width"], artist.spec["height"]) == (256, 256)
    assert artist.spec["num_inference_steps"] == 9


@pytest.mark.parametrize("names", [["image"], ["image[]", "image[]"]])
def test_open_webui_edits(client: httpx.Client, artist: Artist, names: list[str]) -> None:
    data = {"model": "demo", "prompt": "a star", "n": "1", "response_format": "b64_json"}
    files = [(name, ("image.png", picture(), "image/png")) for name in names]
    assert pictures_of(client.post("/v1/images/edits", data=data, files=files)) == [picture()]


def test_open_webui_lists_the_models(client: httpx.Client) -> None:
    answer = client.get("/v1/models", headers={"Authorization": "Bearer"})
    listed: dict[str, Any] = answer.json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["demo"]
    assert {"id", "object", "created", "owned_by"} <= set(listed["data"][0])


def test_anythingllm_draws(client: httpx.Client, artist: Artist) -> None:
    body = {
        "model": "demo",
        "prompt": "a red circle",
        "n": 1,
        "size": "1024x1024",
    }
    answer = client.post("/v1/images/generations", json=body, headers=OF_A_JAVASCRIPT_SDK)
    assert pictures_of(answer) == [picture(512, 512)]
    assert codes(answer) == {"size_adjusted"}


def test_a_browsers_form_with_what_was_not_filled_in(client: httpx.Client, artist: Artist) -> None:
    data = {"prompt": "a star", "n": "", "size": "", "user": "", "quality": "", "seed": "81"}
    files = {"image": ("in.png", picture()), "mask": ("", b"")}
    answer = client.post("/v1/images/edits", data=data, files=files)
    assert pictures_of(answer) == [picture()]
    assert codes(answer) == set()
    assert artist.spec["seed"] == 81


def test_a_retry_of_another_language_joins_too(client: httpx.Client, artist: Artist) -> None:
    body = {"prompt": "a red circle"}
    for count in ("0", "1", "2"):
        headers = OF_A_JAVASCRIPT_SDK | {"X-Stainless-Retry-Count": count}
        answer = client.post("/v1/images/generations", json=body, headers=headers)
        assert answer.json()["id"] == artist.drawn[0]
    assert len(artist.ids()) == 1


def test_a_form_that_is_sent_again_joins_although_its_boundary_differs(
    client: httpx.Client, artist: Artist
) -> None:
    for count in ("0", "1"):
        answer = client.post(
            "/v1/images/edits",
            data={"prompt": "a star"},
            files={"image": ("in.png", picture()), "mask": ("mask.png", cleared())},
            headers={"X-Stainless-Retry-Count": count},
        )
        assert pictures_of(answer) == [picture()]
    assert len(artist.ids()) == 1
