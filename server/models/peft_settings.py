"""What peft tells beside the tensors of a LoRA: how strong its change of each layer is.

Its patterns are regular expressions. A file's are never compiled: paths of modules are compared.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterator
from typing import Any

from server.errors import InvalidSpec
from server.models.places import Place

METADATA = "lora_adapter_metadata"
"""Under which diffusers writes them into the file."""

PATTERN = ".alpha_pattern"
PATH = re.compile(r"\^?[A-Za-z0-9_.]+")
"""The path of a module, or how it ends; after peft's `^` all of it."""


class PeftSettings:
    """Those of one file.

    Args:
        written: what the file has under `METADATA`.

    Raises:
        InvalidSpec: they make no sense; says why.
    """

    def __init__(self, written: str) -> None:
        try:
            # Whole numbers too, of which a file may have some that no float holds.
            self._told = json.loads(written, parse_int=float)
        except (ValueError, RecursionError) as error:
            raise InvalidSpec(f"has settings that cannot be read: {error}") from error
        if not isinstance(self._told, dict):
            raise InvalidSpec("has settings that are no JSON object")
        self._alphas = {
            name.removesuffix(PATTERN): _numbered(name, pattern)
            for name, pattern in self._told.items()
            if name.endswith(PATTERN)
        }

    def scale(self, place: Place, rank: int) -> float:
        """By which the factors at this place are multiplied; 1 where nothing is told.

        Raises:
            InvalidSpec: the alpha is no finite number.
        """
        alpha = self._alpha(place)
        if alpha is None:
            return 1.0
        if not (isinstance(alpha, float) and math.isfinite(alpha)):
            raise InvalidSpec(f"has an alpha that is no finite number: {reprlib.repr(alpha)}")
        return alpha / (math.sqrt(rank) if self._told.get(f"{place.part}.use_rslora") else rank)

    def _alpha(self, place: Place) -> Any:
        """Of the first path in the pattern that fits, as in peft."""
        alphas = self._alphas.get(place.part, {})
        found = [alphas[end] for end in _ends(place.layer) if end in alphas]
        return min(found)[1] if found else self._told.get(f"{place.part}.lora_alpha")


def _numbered(name: str, pattern: Any) -> dict[str, tuple[int, Any]]:
    """The alphas of a pattern with their places in it."""
    if not isinstance(pattern or {}, dict):
        raise InvalidSpec(f"has settings of no sense: its {name} is no JSON object")
    for path in pattern or {}:
        if not PATH.fullmatch(path):
            raise InvalidSpec(
                f"has a {name} with {reprlib.repr(path)}: only plain paths of modules are read,"
                " of letters, digits, _ and dots"
            )
    return {path: (number, alpha) for number, (path, alpha) in enumerate((pattern or {}).items())}


def _ends(layer: str) -> Iterator[str]:
    """All that names a layer in a pattern."""
    yield f"^{layer}"
    while layer:
        yield layer
        _, _, layer = layer.partition(".")
