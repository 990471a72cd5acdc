"""Who comes, and what they ask for: plain values, by dice. Knows no HTTP and no locust."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "green", "blue", "yellow", "white")
SAMPLERS = ("ddim", "euler", "dpmpp_2m")
SHORT_STEPS, LONG_STEPS = (4, 12), (40, 60)
MAX_SEED = 2**53 - 1


class Door(StrEnum):
    """Where they come in."""

    NATIVE = "native"
    OPENAI = "openai"
    A1111 = "a1111"


class Kind(StrEnum):
    """What becomes of what they ask for."""

    SHORT = "short"
    LONG = "long"
    CANCELED = "canceled"
    ABANDONED = "abandoned"


DOORS = {Door.NATIVE: 2, Door.OPENAI: 1, Door.A1111: 1}
KINDS = {Kind.SHORT: 6, Kind.LONG: 2, Kind.CANCELED: 1, Kind.ABANDONED: 1}
"""How often each of them, relative to the others."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the checkpoint draws: of its card, what an order has to keep to."""

    checkpoint: str
    side: int
    side_multiple: int
    min_side: int
    max_steps: int
    max_images: int

    @classmethod
    def of(cls, card: dict[str, Any]) -> Terms:
        """As `GET /v1/checkpoints/{name}` tells them."""
        limits = card["limits"]
        return cls(
            card["name"],
            card["native_size"],
            limits["side_multiple"],
            limits["min_side"],
            limits["max_steps"],
            limits["max_images"],
        )

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Width and height: as it was trained, lying and standing."""
        less = max(self.min_side, self.side * 3 // 4)
        less += -less % self.side_multiple
        return (self.side, self.side), (self.side, less), (less, self.side)


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for, at whatever door."""

    checkpoint: str
    prompt: str
    width: int
    height: int
    steps: int
    images: int
    seed: int
    sampler: str


def an_order(kind: Kind, terms: Terms, dice: random.Random) -> Order:
    """Whoever cancels or leaves has asked for something long. No two have the same seed."""
    least, most = SHORT_STEPS if kind is Kind.SHORT else LONG_STEPS
    width, height = dice.choice(terms.sizes)
    return Order(
        checkpoint=terms.checkpoint,
        prompt=f"a {dice.choice(COLOURS)} {dice.choice(SHAPES)}",
        width=width,
        height=height,
        steps=min(dice.randint(least, most), terms.max_steps),
        images=1 if kind is Kind.SHORT else dice.randint(1, min(2, terms.max_images)),
        seed=dice.randrange(MAX_SEED - 16),
        sampler=dice.choice(SAMPLERS),
    )
