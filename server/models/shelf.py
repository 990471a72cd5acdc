"""Files that a request calls by name, in a folder laid out as A1111's users have them.

Knows no torch, so the gateway may read it too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from server.errors import InvalidSpec

LORA = "Lora"
VAE = "VAE"
SAFE = (".safetensors",)
PICKLED = (".ckpt", ".pt")
CONFIG = "config.json"
"""What makes a folder a model that diffusers saved."""


class Shelf:
    """A folder with all the folders in it; a file's name is its stem, and never a path.

    Of two files of one name the first counts: by suffix, then by path. Files that come while we
    run are found; links that lead out of the folder are not. The folder itself may be a link.

    Args:
        kind: what the files are, for the error.
        folders: whether a diffusers folder counts as a file.
    """

    def __init__(
        self, folder: Path | None, kind: str, suffixes: tuple[str, ...], *, folders: bool = False
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._suffixes = suffixes
        self._folders = folders
        self._found: dict[str, Path] = {}

    @property
    def names(self) -> list[str]:
        """All of them, in order."""
        return sorted(self._scanned())

    def find(self, name: str) -> Path:
        """The file of this name.

        Raises:
            InvalidSpec: there is none; names those that are close.
        """
        path = self._found.get(name)
        if path is None or not path.exists():
            self._found = self._scanned()
            path = self._found.get(name)
        if path is None:
            raise InvalidSpec(self._unknown(name))
        return path

    def _unknown(self, name: str) -> str:
        if self._folder is None:
            return f"this worker was given no folder of models: it has no {self._kind} {name!r}"
        lower = {known.lower(): known for known in self._found}
        close = [lower[each] for each in difflib.get_close_matches(name.lower(), lower)]
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"there is no {self._kind} {name!r} in {self._folder.name}/{hint}"

    def _scanned(self) -> dict[str, Path]:
        """Their paths by name."""
        found: dict[str, Path] = {}
        for path in sorted(self._files(), key=self._rank):
            found.setdefault(path.name if path.is_dir() else path.stem, path)
        return found

    def _files(self) -> Iterator[Path]:
        if self._folder is None or not self._folder.is_dir():
            return
        saved: set[Path] = set()
        if self._folders:
            saved = {path.parent for path in self._folder.rglob(CONFIG)} - {self._folder}
            yield from saved
        for path in self._folder.rglob("*"):
            if path.suffix in self._suffixes and path.parent not in saved and self._has(path):
                yield path

    def _has(self, path: Path) -> bool:
        """Whether the file is really here: a link may lead to any file of this machine."""
        assert self._folder is not None
        return path.is_file() and path.resolve().is_relative_to(self._folder.resolve())

    def _rank(self, path: Path) -> tuple[int, Path]:
        known = path.suffix in self._suffixes
        return self._suffixes.index(path.suffix) + 1 if known else 0, path


def loras(models: Path | None) -> Shelf:
    """The LoRAs of a folder of models."""
    return Shelf(models and models / LORA, "LoRA", SAFE)


def vaes(models: Path | None) -> Shelf:
    """Its autoencoders. Pickled ones are found, whether or not they may be read."""
    return Shelf(models and models / VAE, "autoencoder", SAFE + PICKLED, folders=True)
