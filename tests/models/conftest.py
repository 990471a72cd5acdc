"""Tiny checkpoints of every kind, made once, loaded once, and kept on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from server.models.diffusion import LatentDiffusion  # noqa: E402
from server.models.loading import load  # noqa: E402
from tests.models import tiny, zoo  # noqa: E402

UNAVOIDABLE = (
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:__array_wrap__ must accept context and return_scalar:DeprecationWarning",
    "ignore:Should have t[ab]:UserWarning",
    "ignore:In CPU autocast:UserWarning",
)
"""diffusers' schedulers with NumPy 2, torchsde with sigmas in float32, and diffusers' depth
estimation in float32."""


def pytest_configure(config: pytest.Config) -> None:
    for line in UNAVOIDABLE:
        config.addinivalue_line("filterwarnings", line)


@dataclass(frozen=True)
class Checkpoint:
    """A folder and what we made of it."""

    folder: Path
    denoiser: LatentDiffusion


@pytest.fixture(scope="session")
def one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def v1(one_core: None, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tiny.sd_v1(tmp_path_factory.mktemp("v1"))
    return Checkpoint(folder, load(tiny.card(folder), "cpu"))


@pytest.fixture(scope="session")
def v2(one_core: None, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tiny.sd_v2(tmp_path_factory.mktemp("v2"))
    return Checkpoint(folder, load(tiny.card(folder, prediction_type="v_prediction"), "cpu"))


@pytest.fixture(scope="session")
def replica(
    one_core: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Checkpoint]:
    """Checkpoints of the zoo by name."""

    @cache
    def made(name: str) -> Checkpoint:
        folder = zoo.build(name, tmp_path_factory.mktemp(name))
        return Checkpoint(folder, load(zoo.card(name, folder), "cpu"))

    return made
