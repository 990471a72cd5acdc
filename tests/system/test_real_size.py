"""Stable Diffusion v1 at its real size, from one original file, through the whole system."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from server.models.single_file import CONFIGS  # noqa: E402
from server.models.sources import STEMS  # noqa: E402
from tests.models.original import write_original  # noqa: E402
from tests.models.test_real_sizes import built  # noqa: E402
from tests.system.conftest import Serve  # noqa: E402

ARCHITECTURE = "sd-v1"
PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Path]:
    """A card for an original file of 1.07 billion random numbers in half precision: 2.1 GB."""
    folder, file = tmp_path / "parts", tmp_path / "real.safetensors"
    shutil.copytree(CONFIGS / ARCHITECTURE, folder)
    for part in PARTS:
        _save_random(part, folder / part / f"{STEMS[part]}.safetensors")
    write_original(folder, file)
    shutil.rmtree(folder)
    card = tmp_path / "own.toml"
    card.write_text(f'[checkpoints.real]\nextends = "sd-v1-5"\nsource = "{file}"\n')
    yield card
    file.unlink()  # pytest would keep it for three more runs


def _save_random(part: str, file: Path) -> None:
    """Small weights, norms of one: what a network starts its training with."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, empty in built(ARCHITECTURE, part).state_dict().items():
        tensor = torch.empty(empty.shape, dtype=torch.float16)
        if empty.ndim < 2:
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            tensor.normal_(std=0.02, generator=generator)
        tensors[name] = tensor
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_picture_is_drawn_at_real_size(serve: Serve, catalog: Path) -> None:
    served = serve("--catalog", str(catalog), "--worker", "real")
    served.until(r"Darkroom is ready at", seconds=300)
    body = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 2}
    with served.client() as client:
        headers = {"Prefer": "wait=300"}
        record = client.post("/v1/generations", json=body, headers=headers, timeout=300).json()
        assert record["status"] == "succeeded", record["error"]
        png = client.get(record["images"][0]["url"]).content
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (64, 64)
        assert np.asarray(image).std() > 0
    assert "loading unet" in served.said
