"""Whether the LoRAs and autoencoders that a request names are there, where that can be seen: on a
gateway that shares the models' folder with its workers. Elsewhere the worker decides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from server.errors import FieldError, InvalidSpec
from server.models.shelf import Shelf, loras, vaes
from server.spec import AnySpec


async def check_names(wanted: AnySpec, models: Path | None) -> None:
    """Look, off the event loop, for what the spec names.

    Raises:
        InvalidSpec: names each field whose file is missing, with the names that are close.
    """
    if models is None or not (wanted.loras or wanted.vae):
        return
    if refused := await asyncio.to_thread(lambda: tuple(_missing(wanted, models))):
        raise InvalidSpec.of(refused)


def _missing(wanted: AnySpec, models: Path) -> Iterator[FieldError]:
    if not models.is_dir():
        return
    shelf = loras(models)
    for index, lora in enumerate(wanted.loras):
        yield from _sought(shelf, f"loras.{index}.name", lora.name)
    if wanted.vae:
        yield from _sought(vaes(models), "vae", wanted.vae)


def _sought(shelf: Shelf, field: str, name: str) -> Iterator[FieldError]:
    try:
        shelf.find(name)
    except InvalidSpec as error:
        yield FieldError(field, f"{field}: {error.message}")
