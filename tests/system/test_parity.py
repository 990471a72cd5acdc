"""The picture from the running server is the one diffusers' own pipeline draws."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.catalog import load_catalog
from server.models.sources import locate
from server.spec import Sampler
from tests.builders import a_spec
from tests.models import oracle
from tests.system.conftest import Served

ALL = list(Sampler)


def body(number: int) -> dict[str, Any]:
    """Generations that differ from each other in everything a ticket may differ in."""
    return {
        "prompt": f"a {('red', 'green', 'yellow')[number % 3]} circle on a blue background",
        "negative_prompt": "square" if number % 4 else "",
        "sampler": ALL[number].value,
        "num_inference_steps": 4 + number % 5,
        "guidance_scale": (4.0, 7.5, 1.5)[number % 3],
        "seed": 100 + number,
    }


@cache
def reference(number: int) -> NDArray[np.int_]:
    """What StableDiffusionPipeline draws from the shipped folder."""
    folder = locate(load_catalog()["demo"])
    return oracle.picture(folder, a_spec(**body(number))).astype(int)


def draw(client: httpx.Client, number: int) -> tuple[NDArray[np.int_], float]:
    """The picture and the mean rows of the UNet calls that drew it."""
    record = client.post("/v1/generations", json=body(number), headers={"Prefer": "wait=90"}).json()
    assert record["status"] == "succeeded", record["error"]
    png = client.get(record["images"][0]["url"]).content
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image).astype(int), record["metrics"]["mean_batch_rows"]


@pytest.mark.parametrize("number", range(len(ALL)), ids=[s.value for s in ALL])
def test_every_sampler_alone(served: Served, number: int) -> None:
    with served.client() as client:
        picture, rows = draw(client, number)
    assert rows == 2
    assert np.abs(picture - reference(number)).max() <= 1


def test_all_samplers_in_each_others_company(served: Served) -> None:
    with served.client() as client, ThreadPoolExecutor(len(ALL)) as clients:
        drawn = list(clients.map(lambda number: draw(client, number), range(len(ALL))))
    for number, (picture, _) in enumerate(drawn):
        assert np.abs(picture - reference(number)).max() <= 1, ALL[number]
    assert max(rows for _, rows in drawn) >= 18
