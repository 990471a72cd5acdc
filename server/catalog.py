"""Checkpoint cards: what each checkpoint is, what it can draw, and what it draws by default.

Cards come from TOML and say nothing about how weights are loaded, so the gateway can read them
without torch. The shipped file is `checkpoints.toml` beside this module; an operator's own file
adds cards or replaces shipped ones of the same name, and a card may extend another.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from server.errors import CheckpointError, Forbidden, UnknownCheckpoint
from server.spec import (
    MAX_INPUT_PIXELS,
    Frozen,
    LongPrompts,
    OutputFormat,
    PromptSyntax,
    Quantization,
    Sampler,
    Sigmas,
    Task,
)

SHIPPED = Path(__file__).parent / "checkpoints.toml"


class Safety(StrEnum):
    """What becomes of a picture that the checkpoint's safety checker flags."""

    OFF = "off"
    FLAG = "flag"
    BLUR = "blur"
    BLOCK = "block"

    @property
    def hides(self) -> bool:
        """Whether what is flagged is not shown as it is."""
        return self in (Safety.BLUR, Safety.BLOCK)


class Attention(StrEnum):
    """How attention is computed: `auto` and `sdpa` let torch choose its fastest kernel, `sliced`
    computes a part at a time in less memory."""

    AUTO = "auto"
    SDPA = "sdpa"
    XFORMERS = "xformers"
    SLICED = "sliced"


class Defaults(Frozen):
    """What a request that leaves a field out gets."""

    num_inference_steps: int = 30
    guidance_scale: float = 7.5
    sampler: Sampler = Field(description="The checkpoint's own, unless the card says otherwise.")
    sigmas: Sigmas = Sigmas.DEFAULT
    negative_prompt: str = ""
    clip_skip: int = 0
    output_format: OutputFormat = OutputFormat.PNG
    deadline_seconds: float = Field(default=3600.0, gt=0, le=604_800)
    prompt_syntax: PromptSyntax = PromptSyntax.PLAIN
    long_prompts: LongPrompts = LongPrompts.CHUNK
    strength: float = Field(default=0.8, gt=0, le=1, description="But for inpainting.")
    inpainting_strength: float = Field(default=1.0, gt=0, le=1)
    noise_level: int = Field(default=20, ge=0)
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5


class Limits(Frozen):
    """What is refused. Sides and pixels bound memory, the rest bounds time."""

    min_side: int = Field(default=64, gt=0)
    max_side: int = Field(default=2048, gt=0)
    max_pixels: int = Field(gt=0)
    max_input_pixels: int = Field(
        default=2**24, gt=0, le=MAX_INPUT_PIXELS, description="Of each picture that is sent."
    )
    side_multiple: int = Field(default=8, gt=0)
    max_images: int = Field(default=16, gt=0)
    max_steps: int = Field(default=150, gt=0)
    max_guidance: float = Field(default=50.0, ge=0)
    max_clip_skip: int = Field(default=11, ge=0)
    max_prompt_characters: int = Field(default=20_000, gt=0)
    max_noise_level: int = Field(default=350, ge=0)
    max_loras: int = Field(default=8, ge=0)
    max_sweep: int = Field(default=64, gt=0, description="Pictures of a sweep.")


class Card(Frozen):
    """One checkpoint."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    description: str = ""
    family: Literal["sd", "sdxl"]
    source: str = Field(
        description="Hub id, diffusers folder, original .safetensors or .ckpt file, or `package:` "
        "for a shipped one."
    )
    revision: str = Field(default="main", description="Of the hub id: a branch, tag or commit.")
    config: str = Field(
        default="",
        description="For a single file that is not of a known architecture: a diffusers folder "
        "with the configs and the tokenizers; it needs no weights.",
    )
    vae: str = Field(
        default="",
        description="Replaces its autoencoder: a name in the folder VAE, or a path. Empty for its "
        "own.",
    )
    preview_vae: str = Field(
        default="",
        description="Decodes previews, and nothing else: an AutoencoderTiny, by its name in the "
        "folder VAE, or a path. Empty: as pictures are.",
    )
    native_size: int = Field(gt=0, description="Pixels per side it was trained at.")
    prediction_type: Literal["epsilon", "v_prediction"]
    tasks: tuple[Task, ...] = Field(min_length=1)
    licence: str = ""
    attention: Attention = Field(
        default=Attention.AUTO, description="`auto` leaves it to the settings."
    )
    quantization: Quantization = Field(
        default=Quantization.NONE,
        description="Of the weights of the UNet's linear layers, by torchao: `int8`, or `fp8` on "
        "GPUs that compute in it. Pictures differ a little.",
    )
    safety: Safety = Field(
        default=Safety.OFF, description="`off` does not load the safety checker either."
    )
    zero_terminal_snr: bool = Field(
        default=False, description="Trained so that its last timestep is pure noise."
    )
    sampler_config: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description="Laid over the checkpoint's own scheduler config.",
    )
    defaults: Defaults
    limits: Limits

    @model_validator(mode="after")
    def _draws_its_own_defaults(self) -> Self:
        """A request that names only a prompt must be one that can be drawn."""
        size, limits, defaults = self.native_size, self.limits, self.defaults
        fits = limits.min_side <= size <= limits.max_side and size**2 <= limits.max_pixels
        if not fits or size % limits.side_multiple:
            raise ValueError(f"native_size {size} is outside its own limits")
        if not 1 <= defaults.num_inference_steps <= limits.max_steps:
            raise ValueError("defaults.num_inference_steps is outside its own limits")
        if not 0 <= defaults.guidance_scale <= limits.max_guidance:
            raise ValueError("defaults.guidance_scale is outside its own limits")
        return self


class Catalog(Mapping[str, Card]):
    """Cards by name, in the order of their files."""

    def __init__(self, cards: Mapping[str, Card], closed: Iterable[str] = ()) -> None:
        self._cards = dict(cards)
        self.closed = frozenset(closed)
        """Names of cards that are there for others only."""

    def only(self, names: Collection[str]) -> Catalog:
        """The same for somebody who may draw with these alone."""
        cards = {name: card for name, card in self._cards.items() if name in names}
        return Catalog(cards, self._cards.keys() - cards.keys())

    def check_open(self, name: str) -> None:
        """Raises Forbidden where a card of this name is there for others only."""
        if name in self.closed:
            raise Forbidden(f"this key may not draw with {name}; it may with: {self._known}")

    @property
    def _known(self) -> str:
        return ", ".join(self._cards) or "none"

    def __getitem__(self, name: str) -> Card:
        try:
            return self._cards[name]
        except KeyError:
            self.check_open(name)
            raise UnknownCheckpoint(
                f"there is no checkpoint {name[:80]!r} in the catalog; it has: {self._known}",
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
            document = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f"cannot read the catalog {path}: {error}") from error
    tables = document.pop("checkpoints", {})
    if document:
        raise CheckpointError(f"{path}: {next(iter(document))!r} means nothing here")
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise CheckpointError(f"{path}: every card is a table [checkpoints.NAME]")
    return tables


def _card(name: str, tables: Mapping[str, dict[str, Any]]) -> Card:
    try:
        return Card.model_validate({"name": name} | _extended(name, tables, ()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise CheckpointError(f"checkpoint {name!r}: {where}{first['msg']}") from error


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
    if not isinstance(parent, str):
        raise CheckpointError(f"checkpoint {name!r}: extends names one other card")
    base = _extended(parent, tables, (*seen, name))
    for part in ("defaults", "limits"):
        own = table.get(part, {})
        if not isinstance(own, dict):
            raise CheckpointError(f"checkpoint {name!r}: {part} is a table")
        table[part] = base.get(part, {}) | own
    return base | table
