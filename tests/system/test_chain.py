"""Base, refiner and upscaler in three worker processes: one generation, equal to diffusers'."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from numpy.typing import NDArray
from PIL import Image

from tests.models import zoo
from tests.system.conftest import Served

CHAIN = ("sdxl-base", "sdxl-refiner", "sd-x4-upscaler")
BODY: dict[str, Any] = {
    "prompt": "a fox",
    "num_inference_steps": 8,
    "seed": 5,
    "refiner": {"checkpoint": "tiny-sdxl-refiner", "switch_at": 0.5},
    "upscaler": {"checkpoint": "tiny-sd-x4-upscaler", "num_inference_steps": 4},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("zoo")
    return {name: zoo.build(name, root / name) for name in CHAIN}


@pytest.fixture(scope="module")
def served_chain(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One worker for each of the three."""
    root = tmp_path_factory.mktemp("chain")
    cards = [zoo.card(name, folders[name]) for name in CHAIN]
    (root / "cards.toml").write_text("\n".join(as_toml(card) for card in cards))
    workers = [option for card in cards for option in ("--worker", f"tiny-{card.name}")]
    served = Served(root / "data", "--catalog", str(root / "cards.toml"), *workers)
    yield served
    assert served.stop(signal.SIGTERM) == 0, served.said


def as_toml(card: Any) -> str:
    """The card as an operator would write it."""
    lines = [f"[checkpoints.tiny-{card.name}]"]
    for name in ("family", "source", "native_size", "prediction_type"):
        lines.append(f"{name} = {getattr(card, name)!r}")
    lines.append(f"tasks = {[task.value for task in card.tasks]!r}")
    lines.append(f'defaults = {{ sampler = "{card.defaults.sampler.value}" }}')
    lines.append(f"limits = {{ max_pixels = {card.limits.max_pixels} }}")
    return "\n".join(lines) + "\n"


def draw(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/generations", json=body, headers={"Prefer": "wait=120"})
    record: dict[str, Any] = answer.json()
    assert record.get("status") == "succeeded", record
    return record


def reference(folders: dict[str, Path], spec: dict[str, Any]) -> NDArray[np.int_]:
    """The three pipelines one after the other."""
    base = _pipeline(StableDiffusionXLPipeline, folders["sdxl-base"])
    refiner = _pipeline(StableDiffusionXLImg2ImgPipeline, folders["sdxl-refiner"])
    upscaler = _pipeline(StableDiffusionUpscalePipeline, folders["sd-x4-upscaler"])
    common = {"prompt": BODY["prompt"], "num_inference_steps": 8}
    latents = base(
        **common,
        width=64,
        height=64,
        guidance_scale=spec["guidance_scale"],
        denoising_end=0.5,
        output_type="latent",
        generator=torch.Generator().manual_seed(5),
    ).images
    picture = refiner(
        **common,
        image=latents,
        guidance_scale=spec["refiner"]["guidance_scale"],
        denoising_start=0.5,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    large = upscaler(
        prompt=BODY["prompt"],
        image=picture,
        num_inference_steps=4,
        guidance_scale=spec["upscaler"]["guidance_scale"],
        noise_level=spec["upscaler"]["noise_level"],
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    return np.asarray(large).astype(int)


def _pipeline(kind: Any, folder: Path) -> Any:
    pipeline = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def await_event(client: httpx.Client, location: str, event: str) -> None:
    with client.stream("GET", f"{location}/events") as events:
        assert any(line == f"event: {event}" for line in events.iter_lines())


def test_a_chain_of_three_checkpoints_draws_what_three_pipelines_draw(
    served_chain: Served, folders: dict[str, Path]
) -> None:
    with served_chain.client() as client:
        record = draw(client, BODY | {"checkpoint": "tiny-sdxl-base"})
        image = record["images"][0]
        data = client.get(image["url"]).content
    with Image.open(io.BytesIO(data)) as opened:
        ours = np.asarray(opened.convert("RGB")).astype(int)
    assert ours.shape == (256, 256, 3)
    assert np.abs(ours - reference(folders, record["spec"])).max() <= 2
    assert [stage["checkpoint"] for stage in record["stages"]] == [f"tiny-{n}" for n in CHAIN]
    assert record["progress"]["fraction"] == 1


def test_one_cancel_ends_a_chain_wherever_it_is(served_chain: Served) -> None:
    long = BODY | {"checkpoint": "tiny-sdxl-base", "num_inference_steps": 140}
    with served_chain.client() as client:
        location = client.post("/v1/generations", json=long).headers["location"]
        client.post(f"{location}/cancel")
        answer = client.get(location, headers={"Prefer": "wait=30"})
        await_event(client, location, "done")
        assert client.get(location).json()["status"] == "canceled", answer.text


def test_a_chain_canceled_after_its_first_stage_leaves_no_file(served_chain: Served) -> None:
    body = BODY | {"checkpoint": "tiny-sdxl-base", "num_inference_steps": 100}
    with served_chain.client() as client:
        location = client.post("/v1/generations", json=body).headers["location"]
        await_event(client, location, "stage")
        client.post(f"{location}/cancel")
        await_event(client, location, "done")
        assert client.get(location).json()["status"] == "canceled"
    folder = served_chain.data_dir / "images" / location.rpartition("/")[2]
    deadline = time.monotonic() + 10
    while files := [path.name for path in folder.glob("*")]:
        assert time.monotonic() < deadline, files
        time.sleep(0.05)


def test_a_killed_refiner_is_started_again_and_goes_on_where_the_base_ended(
    served_chain: Served,
) -> None:
    body = BODY | {"checkpoint": "tiny-sdxl-base", "num_inference_steps": 100}
    with served_chain.client() as client:
        location = client.post("/v1/generations", json=body).headers["location"]
        await_event(client, location, "stage")
        served_chain.kill("worker 2")
        await_event(client, location, "done")
        record = client.get(location).json()
    assert record["status"] == "succeeded", record
