"""Checkpoint cards: what each checkpoint is, what it can draw, and what it draws by default.

Cards come from TOML and say nothing about how weights are loaded, so the gateway can read them
without torch. The shipped file is `checkpoints.toml` beside this module; an operator's own file
adds cards or replaces shipped ones of the same name, and a card may extend another.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from server.errors import CheckpointError, UnknownCheckpoint
from server.spec import Frozen, OutputFormat, Sampler, Sigmas, Task

SHIPPED = Path(__file__).parent / "checkpoints.toml"


class Defaults(Frozen):
    """What a request that leaves a field out gets."""

    num_inference_steps: int = 30
    guidance_scale: float = 7.5
    sampler: Sampler = Field(description="The checkpoint's own, unless the card says otherwise.")
    sigmas: Sigmas = Sigmas.DEFAULT
    negative_prompt: str = ""
    clip_skip: int = 0
    output_format: OutputFormat = OutputFormat.PNG
    deadline_seconds: float = 3600.0


class Limits(Frozen):
    """What is refused. Sides and pixels bound memory, the rest bounds time."""

    min_side: int = 64
    max_side: int = 2048
    max_pixels: int
    side_multiple: int = 8
    max_images: int = 16
    max_steps: int = 150
    max_guidance: float = 50.0
    max_clip_skip: int = 11
    max_prompt_characters: int = 20_000


class Card(Frozen):
    """One checkpoint."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    description: str = ""
    family: Literal["sd"]
    source: str = Field(description="Hub id, diffusers folder, or `package:` for a shipped one.")
    revision: str = "main"
    native_size: int = Field(gt=0, description="Pixels per side it was trained at.")
    prediction_type: Literal["epsilon", "v_prediction"]
    tasks: tuple[Task, ...] = Field(min_length=1)
    licence: str = ""
    defaults: Defaults
    limits: Limits


class Catalog(Mapping[str, Card]):
    """Cards by name, in the order of their files."""

    def __init__(self, cards: Mapping[str, Card]) -> None:
        self._cards = dict(cards)

    def __getitem__(self, name: str) -> Card:
        try:
            return self._cards[name]
        except KeyError:
            known = ", ".join(self._cards)
            raise UnknownCheckpoint(
                f"there is no checkpoint {name[:80]!r} in the catalog; it has: {known}",
                field="checkpoint",
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._cards

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)


def load_catalog(own: Path | None = None) -> Catalog:
    """The shipped cards, then the operator's own.

    Raises:
        CheckpointError: a file is not TOML or a card is wrong; says which and where.
    """
    tables = _tables(SHIPPED)
    if own is not None:
        tables |= _tables(own)
    return Catalog({name: _card(name, tables) for name in tables})


def _tables(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file).get("checkpoints", {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f"cannot read the catalog {path}: {error}") from error
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise CheckpointError(f"{path}: every card is a table [checkpoints.NAME]")
    return tables


def _card(name: str, tables: Mapping[str, dict[str, Any]]) -> Card:
    try:
        return Card.model_validate({"name": name} | _extended(name, tables, ()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"checkpoint {name!r}: {where}: {first['msg']}") from error


def _extended(
    name: str, tables: Mapping[str, dict[str, Any]], seen: tuple[str, ...]
) -> dict[str, Any]:
    """The card's table laid over that of the card it extends; `defaults` and `limits` merge."""
    if name not in tables:
        raise CheckpointError(f"checkpoint {seen[-1]!r} extends {name!r}, which has no card")
    if name in seen:
        raise CheckpointError(f"checkpoints extend each other: {' → '.join((*seen, name))}")
    table = dict(tables[name])
    parent = table.pop("extends", None)
    if parent is None:
        return table
    base = _extended(parent, tables, (*seen, name))
    for part in ("defaults", "limits"):
        table[part] = base.get(part, {}) | table.get(part, {})
    return base | table
