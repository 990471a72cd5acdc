"""Memory stays what it is, however much is drawn, canceled, worn and taken off again."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from obstore.store import LocalStore
from prometheus_client import CollectorRegistry
from safetensors.torch import save_file

from server.catalog import load_catalog
from server.metrics import WorkerMetrics
from server.models.adapters import KEPT_LORAS, KEPT_VAES
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.models.sources import locate
from server.models.tensors import read_safetensors
from server.spec import Lora, Sampler
from server.storage import ObjectImageStore
from server.workers.engine import Engine
from server.workers.stage import Claim, Drawn, Ended, Result
from server.workers.studio import EngineStudio
from tests.builders import a_claim
from tests.models import loras

SECONDS = 60
ALLOWED_GROWTH = 0.05
SAMPLERS = list(Sampler)
LORAS, WORDS, VAES = KEPT_LORAS + 3, 5, KEPT_VAES + 2
"""More than are kept, so that each is dropped and read again."""

CAPACITY = 6


def resident_bytes() -> int:
    """Of this process, with all given back that can be."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return 1024 * int(line.split()[1])


@pytest.fixture(scope="module")
def denoiser(one_core: None, tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    """The demo, beside adapters of all kinds."""
    models, card = tmp_path_factory.mktemp("models"), load_catalog()["demo"]
    folder = locate(card)
    for number in range(LORAS):
        file = models / "Lora" / f"lora-{number}.safetensors"
        loras.write(file, folder, text=number % 2 == 0, seed=number)
    width = json.loads((folder / "text_encoder" / "config.json").read_text())["hidden_size"]
    (models / "embeddings").mkdir()
    for number in range(WORDS):
        vectors = {"emb_params": torch.randn(2, width)}
        save_file(vectors, models / "embeddings" / f"word{number}.safetensors")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    for number in range(VAES):
        vae.save_pretrained(models / "VAE" / f"vae-{number}")
    return load(card, "cpu", models_dir=models)


def claims() -> Iterator[Claim]:
    """Small, quick, and each with other adapters, words, samplers and rows than the one before."""
    for number in count():
        worn = Lora(name=f"lora-{number % LORAS}", scale=0.1 + number % 7 / 10)
        yield a_claim(
            f"gen_{number}",
            prompt=f"word{number % WORDS} and circle {number % 500}",
            width=64,
            height=64,
            num_inference_steps=2 + number % 2,
            guidance_scale=(4.0, 1.0)[number % 2],
            sampler=SAMPLERS[number % len(SAMPLERS)],
            loras=(worn,) if number % 3 else (),
            vae=f"vae-{number // 10 % VAES}" if number % 10 == 0 else "",
            previews=number % 4 == 0,
            seed=number,
            deadline_seconds=3600.0,
        )


class House:
    """A studio that draws; one claim in three is canceled, wherever it stands."""

    def __init__(self, denoiser: LatentDiffusion, folder: Path) -> None:
        self.store = ObjectImageStore(LocalStore(folder, mkdir=True))
        self.studio = EngineStudio(
            Engine(denoiser, max_step_pixels=10**6),
            self.store,
            capacity=CAPACITY,
            worker="w",
            version="1",
            metrics=WorkerMetrics(CollectorRegistry()),
            peak_memory_bytes=denoiser.peak_memory_bytes,
            show=lambda *what: None,
        )
        self.ended: Counter[str] = Counter()
        self._room = threading.Semaphore(CAPACITY)
        self._claims = claims()
        self.studio.start(self._finish)

    def draw(self, pictures: int) -> None:
        """So many and the canceled ones between them; returns when nothing is in flight."""
        wanted = self.ended["drawn"] + pictures
        while self.ended["drawn"] < wanted:
            admitted = list(islice(self._claims, CAPACITY))
            for claim in admitted:
                assert self._room.acquire(timeout=SECONDS)
                self.studio.admit(claim)
            for claim in admitted[::3]:
                self.studio.cancel(claim)
        for _ in range(CAPACITY):
            assert self._room.acquire(timeout=SECONDS)
        self._room.release(CAPACITY)

    def _finish(self, claim: Claim, result: Result) -> None:
        ended = "drawn" if isinstance(result, Drawn) else str(getattr(result, "state", result))
        if isinstance(result, Ended) and result.error is not None:
            ended = result.error.message
        self.ended[ended] += 1
        self._room.release()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "pictures",
    [100, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_memory_stays_flat(denoiser: LatentDiffusion, tmp_path: Path, pictures: int) -> None:
    house = House(denoiser, tmp_path)
    house.draw(max(100, pictures // 10))  # what is kept on purpose is full
    warm = house.ended.copy()
    sizes = [resident_bytes()]
    for _ in range(10):
        house.draw(pictures // 10)
        sizes.append(resident_bytes())
    assert house.studio.close(SECONDS)
    ended = house.ended - warm
    growth = [size / sizes[0] - 1 for size in sizes[1:]]
    sys.stdout.write(
        f"\n{ended['drawn']} drawn, {ended['canceled']} canceled; resident {sizes[0] / 1e6:.0f} MB"
        f" after the first {warm.total()}, then by tenths:"
        f" {' '.join(f'{100 * each:+.2f} %' for each in growth)}\n"
    )
    assert ended.keys() == {"drawn", "canceled"}
    assert ended["canceled"] >= 0.2 * ended.total()
    assert max(growth) < ALLOWED_GROWTH


def test_a_file_that_is_read_again_and_again_leaves_nothing_behind(tmp_path: Path) -> None:
    file, tensors = tmp_path / "it.safetensors", 200
    save_file({f"layer {number}": torch.randn(16, 40) for number in range(tensors)}, file)
    read_safetensors(file)
    tracemalloc.start()
    try:
        for _ in range(10):
            read_safetensors(file)
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 10 * tensors * 10, "fewer than ten bytes for each tensor"
