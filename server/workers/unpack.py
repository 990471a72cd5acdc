"""Loading a checkpoint as the settings say, where somebody can watch."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from server.catalog import Card
from server.config import Settings
from server.models.loading import load
from server.workers.compiling import COMPILED

if TYPE_CHECKING:
    from server.models.diffusion import LatentDiffusion
    from server.models.loading import Progress as Told

log = logging.getLogger("darkroom.worker")


def unpack(settings: Settings, card: Card) -> LatentDiffusion:
    """The card's checkpoint on its device; says what it is at, on a terminal with a bar.

    Raises:
        CheckpointError: it cannot be loaded; says which part.
    """
    console = Console(stderr=True)
    began = time.perf_counter()
    with _bar(console) if console.is_terminal else _lines() as told:
        denoiser = load(
            card,
            settings.device,
            settings.dtype,
            told,
            settings.models_dir,
            compiled_dir=None if settings.compile == "off" else settings.data_dir / COMPILED,
            cuda_graphs=settings.cuda_graphs,
            allow_pickle=settings.allow_pickle,
            attention=settings.attention,
            vae_tiling=settings.vae_tiling,
            vae_slicing=settings.vae_slicing,
            offload=settings.offload,
        )
    seconds = time.perf_counter() - began
    log.info("%s is on %s after %.1f s", card.name, denoiser.device, seconds)
    return denoiser


@contextmanager
def _bar(console: Console) -> Iterator[Told]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("opening", total=None)

        def told(part: str, done: int, total: int) -> None:
            progress.update(task, description=f"loading {part}", completed=done, total=total)

        yield told


@contextmanager
def _lines() -> Iterator[Told]:
    began = time.perf_counter()

    def told(part: str, done: int, total: int) -> None:
        seconds = time.perf_counter() - began
        log.info("loading %s, %.1f of %.1f MB, %.1f s", part, done / 1e6, total / 1e6, seconds)

    yield told
