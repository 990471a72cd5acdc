"""The plan file: what is to be drawn, how soon, and by workers of which speed. Knows TOML and
cards; not how any of it is simulated."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from server import forecast
from server.catalog import Card
from server.errors import DarkroomError
from server.forecast import Speed
from server.spec import Frozen, Sampler, TextToImage
from server.stages import Stage
from server.workers.planner import worthwhile_rows

DECODING = ("decode_seconds", "decode_curve", "decode_pixels")


MOST_RATE = 100_000.0
MOST_WORKERS = 5_000
"""That a checkpoint may need at the least: it takes minutes to simulate them."""


class PlanError(DarkroomError):
    """A plan that cannot be read, or that says too little."""


class Goal(Frozen):
    """Seconds from acceptance to the picture that so many of a hundred generations may take."""

    p50: float | None = Field(default=None, gt=0)
    p95: float | None = Field(default=None, gt=0)
    p99: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.bounds:
            raise ValueError("name p50, p95 or p99, in seconds")
        return self

    @property
    def bounds(self) -> dict[int, float]:
        """By percentile."""
        said = {50: self.p50, 95: self.p95, 99: self.p99}
        return {percentile: seconds for percentile, seconds in said.items() if seconds is not None}

    def __str__(self) -> str:
        return ", ".join(f"p{percentile} <= {most:g} s" for percentile, most in self.bounds.items())


class Traffic(Frozen):
    """Generations that are alike. What is left out is as the checkpoint's card says."""

    checkpoint: str
    rate: float = Field(gt=0, le=MOST_RATE, strict=True, description="Generations a second.")
    width: int | None = Field(default=None, gt=0)
    height: int | None = Field(default=None, gt=0)
    num_images: int = Field(default=1, ge=1)
    num_inference_steps: int | None = Field(default=None, ge=1)
    guidance_scale: float | None = Field(default=None, ge=0)
    sampler: Sampler | None = None


class Pace(Frozen):
    """What a worker of a checkpoint is, as far as the file says it."""

    curve: tuple[tuple[int, float], ...] = Field(default=(), description="Rows, and seconds.")
    smallest: tuple[float, float] | None = None
    full_rows: int | None = Field(default=None, gt=0)
    exponent: float = Field(default=1.0, gt=0, le=4)
    guided_rows: int = Field(default=2, ge=1, le=2, description="Of a guided picture.")
    decode_seconds: float = Field(default=0.0, ge=0)
    decode_curve: tuple[tuple[int, float], ...] = Field(default=(), description="Pixels, seconds.")
    decode_pixels: int = Field(default=0, ge=0, description="That are decoded at once; 0: all.")
    encode_seconds: float = Field(default=0.0, ge=0, description="From claim to first step.")
    publish_seconds: float = Field(default=0.0, ge=0, description="From decoded to answered.")
    capacity: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        rows = [rows for rows, _ in self.curve]
        if rows != sorted(set(rows)) or any(row < 1 for row in rows):
            raise ValueError("curve: rows rise, from 1 or more")
        if any(seconds <= 0 for _, seconds in self.curve):
            raise ValueError("curve: a step takes more than 0 seconds")
        return self


class Plan(Frozen):
    """The file as it stands."""

    goal: Goal
    traffic: tuple[Traffic, ...] = Field(min_length=1)
    checkpoints: dict[str, Pace] = Field(default_factory=dict)
    generations: int = Field(
        default=20_000, ge=1000, le=5_000_000, description="Simulated of each checkpoint."
    )
    seed: int = 0

    @model_validator(mode="after")
    def _all_is_drawn(self) -> Self:
        drawn = {traffic.checkpoint for traffic in self.traffic}
        if idle := sorted(self.checkpoints.keys() - drawn):
            raise ValueError(f"no traffic names the checkpoint {idle[0]!r}")
        return self

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Checkpoints that are drawn with, and of which the file gives no curve."""
        names = dict.fromkeys(traffic.checkpoint for traffic in self.traffic)
        return tuple(n for n in names if not self.checkpoints.get(n, Pace()).curve)


@dataclass(frozen=True, slots=True)
class Kind:
    """Generations that are alike, and how many come a second."""

    stage: Stage
    rate: float

    def __str__(self) -> str:
        spec = self.stage.spec
        images = f"{spec.num_images} x " if spec.num_images > 1 else ""
        guided = "" if spec.guided else ", unguided"
        steps = f"{spec.num_inference_steps} steps of {spec.sampler}"
        return f"{images}{spec.width}x{spec.height}, {steps}{guided}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a running worker says of itself."""

    speed: Speed
    capacity: int


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of one checkpoint, which are alike, and what they are to draw."""

    checkpoint: str
    kinds: tuple[Kind, ...]
    speed: Speed
    capacity: int
    encode_seconds: float = 0.0
    publish_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Generations a second."""
        return sum(kind.rate for kind in self.kinds)

    @property
    def load(self) -> float:
        """Workers that would be busy all the time if every call were full: fewer cannot do it."""
        return sum(kind.rate * forecast.work(kind.stage, self.speed) for kind in self.kinds)

    def alone(self, kind: Kind) -> float:
        """Seconds that a generation takes where nothing is before it or beside it."""
        drawing = forecast.duration(kind.stage, self.speed)
        return self.encode_seconds + drawing + self.publish_seconds


def read_plan(path: Path) -> Plan:
    """Raises PlanError where it cannot be read; says where."""
    try:
        return Plan.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"cannot read the plan {path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise PlanError(f"{path}: {where}{first['msg'].removeprefix('Value error, ')}") from error


def crews(
    plan: Plan, cards: Mapping[str, Card], measured: Mapping[str, Measured], capacity: int
) -> list[Crew]:
    """Of every checkpoint that is drawn with, in the order of the file.

    Args:
        measured: of those without a curve in the file.
        capacity: of workers of which nothing else is said.

    Raises:
        PlanError: nobody has measured one of them.
        UnknownCheckpoint: one is in no catalog.
    """
    by_name: dict[str, list[Kind]] = {}
    for traffic in plan.traffic:
        kind = Kind(_stage(traffic, cards[traffic.checkpoint]), traffic.rate)
        by_name.setdefault(traffic.checkpoint, []).append(kind)
    found = []
    for name, kinds in by_name.items():
        pace = plan.checkpoints.get(name, Pace())
        known = measured.get(name)
        speed = _speed(pace, cards[name]) or (known and known.speed)
        if not speed:
            raise PlanError(
                f"nobody has measured {name!r}: give checkpoints.{name}.curve in the plan, or "
                "name a server that serves it with --server"
            )
        holds = pace.capacity or (known.capacity if known else capacity)
        crew = Crew(name, tuple(kinds), speed, holds, pace.encode_seconds, pace.publish_seconds)
        if crew.load > MOST_WORKERS:
            raise PlanError(
                f"{name!r} would keep {crew.load:,.0f} workers busy; at most {MOST_WORKERS:,} are "
                "simulated: plan for a share of the traffic"
            )
        found.append(crew)
    return found


def _speed(pace: Pace, card: Card) -> Speed | None:
    if not pace.curve:
        return None
    return Speed(
        native_pixels=card.native_size**2,
        full_rows=pace.full_rows or worthwhile_rows(pace.curve),
        **pace.model_dump(include={"curve", "smallest", "exponent", "guided_rows", *DECODING}),
    )


def _stage(traffic: Traffic, card: Card) -> Stage:
    """What costs time is as the traffic says; the rest is anything."""
    said = traffic.model_dump(exclude={"checkpoint", "rate"}, exclude_none=True)
    defaults: dict[str, Any] = {
        "checkpoint": card.name,
        "prompt": "",
        "negative_prompt": "",
        "width": card.native_size,
        "height": card.native_size,
        "guidance_rescale": 0.0,
        "eta": 0.0,
        "seed": 0,
        "clip_skip": 0,
        "priority": 0,
    }
    common = card.defaults.model_dump(include=set(TextToImage.model_fields))
    for name, value in said.items():
        _check(name, value, card)
    return Stage(spec=TextToImage.model_validate(common | defaults | said))


def _check(name: str, value: Any, card: Card) -> None:
    """By the limits of the card, as a request would be."""
    limits, multiple = card.limits, card.limits.side_multiple
    most = {
        "width": limits.max_side,
        "height": limits.max_side,
        "num_images": limits.max_images,
        "num_inference_steps": limits.max_steps,
        "guidance_scale": limits.max_guidance,
    }
    if value > most.get(name, value):
        raise PlanError(f"traffic: {card.name} takes a {name} of {most[name]} at most, not {value}")
    if name in ("width", "height") and (value < limits.min_side or value % multiple):
        least = f"{limits.min_side} or more, a multiple of {multiple}"
        raise PlanError(f"traffic: {card.name} takes a {name} of {least}, not {value}")
