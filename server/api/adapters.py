"""Whether the LoRAs and autoencoders that a request names are there, where that can be seen: on a
gateway that shares the models' folder with its workers. Elsewhere the worker decides."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterator
from pathlib import Path

from server.errors import FieldError, InvalidSpec
from server.spec import AnySpec

LORA = "Lora"
VAE = "VAE"
SUFFIXES = frozenset({".safetensors", ".pt", ".ckpt", ".bin"})


async def check_names(wanted: AnySpec, models: Path | None) -> None:
    """Look, off the event loop, for what the spec names.

    Raises:
        InvalidSpec: names each field whose file is missing, with the names that are close.
    """
    if models is None or not (wanted.loras or wanted.vae):
        return
    if refused := await asyncio.to_thread(lambda: tuple(_missing(wanted, models))):
        raise InvalidSpec.of(refused)


def names(folder: Path) -> list[str]:
    """Names of the files in it, as requests have them."""
    if not folder.is_dir():
        return []
    return sorted({path.stem for path in folder.iterdir() if path.suffix.lower() in SUFFIXES})


def _missing(wanted: AnySpec, models: Path) -> Iterator[FieldError]:
    if not models.is_dir():
        return
    known = names(models / LORA) if wanted.loras else []
    for index, lora in enumerate(wanted.loras):
        if lora.name not in known:
            yield _error(f"loras.{index}.name", lora.name, known, LORA)
    if wanted.vae and wanted.vae not in (known := names(models / VAE)):
        yield _error("vae", wanted.vae, known, VAE)


def _error(field: str, name: str, known: list[str], folder: str) -> FieldError:
    close = difflib.get_close_matches(name, known, n=3)
    hint = (
        f"; did you mean {' or '.join(close)}?"
        if close
        else f"; the folder {folder} has no such file"
    )
    return FieldError(field, f"{field}: there is no {name!r}{hint}")
