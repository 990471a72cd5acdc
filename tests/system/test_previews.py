"""Watching a picture while it is drawn, as a browser does."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.system.conftest import Served

BODY: dict[str, Any] = {
    "prompt": "a red circle on a blue background",
    "num_inference_steps": 60,
    "seed": 7,
}


def watched(client: httpx.Client, location: str) -> list[dict[str, Any]]:
    """The data of each `preview` event, with the picture that was there when it came."""
    shown = []
    with client.stream("GET", f"{location}/events") as events:
        lines = iter(events.iter_lines())
        for line in lines:
            if line == "event: preview":
                data = json.loads(next(lines).removeprefix("data: "))
                shown.append(data | {"picture": client.get(data["url"])})
    return shown


def test_a_picture_is_seen_to_emerge_and_comes_out_the_same(served: Served) -> None:
    two = BODY | {"num_images": 2}
    with served.client() as client:
        answer = client.post("/v1/generations", json=two | {"previews": 3})
        location = answer.headers["location"]
        shown = watched(client, location)
        numbers: dict[int, list[int]] = {0: [], 1: []}
        for each in shown:
            numbers[each["index"]].append(each["number"])
            assert each["picture"].headers["content-type"] == "image/jpeg"
            assert Image.open(io.BytesIO(each["picture"].content)).size == (128, 128)
        # What is late is left out: how many there are is not certain, only their order.
        assert all(told and told == sorted(set(told)) for told in numbers.values())
        images = client.get(location).json()["images"]
        final = client.get(images[0]["url"]).content
        newest = client.get(f"{location}/images/0/preview").content
        assert np.abs(pixels(newest) - pixels(final)).mean() < 25
        plain = client.post("/v1/generations", json=two, headers={"Prefer": "wait=60"}).json()
        assert plain["images"][0]["sha256"] == images[0]["sha256"]


def pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.int_]]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
