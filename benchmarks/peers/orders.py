"""What is asked of everybody. Knows no server, no clock and no torch."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

COLOURS = ("red", "orange", "green", "blue", "purple", "black", "yellow", "white")


@dataclass(frozen=True, slots=True)
class Order:
    """One picture, by the names that Darkroom's API has for it."""

    prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    seed: int

    @property
    def kind(self) -> Hashable:
        """What the pictures of one pipeline call have in common."""
        return (
            self.width,
            self.height,
            self.num_inference_steps,
            self.guidance_scale,
            self.sampler,
        )

    def body(self) -> dict[str, Any]:
        """As JSON; every peer is sent the same."""
        return asdict(self)

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """The way back."""
        return cls(**body)


@dataclass(frozen=True, slots=True)
class Mix:
    """What clients choose. A value that stands there twice is chosen twice as often."""

    sides: Sequence[int]
    steps: Sequence[int]
    guidance: Sequence[float] = (4.0, 4.0, 7.5, 1.0)
    samplers: Sequence[str] = ("dpmpp_2m", "dpmpp_2m", "euler", "euler_a")

    def orders(self, count: int, first: int = 0) -> list[Order]:
        """The same kinds every time, in the same order. `first` is the seed of the first: with
        another no prompt is the same, as somebody may keep what was encoded."""
        draw = random.Random(0)
        return [
            Order(
                prompt=_prompt(seed),
                width=(side := draw.choice(self.sides)),
                height=side,
                num_inference_steps=draw.choice(self.steps),
                guidance_scale=draw.choice(self.guidance),
                sampler=draw.choice(self.samplers),
                seed=seed,
            )
            for seed in range(first, first + count)
        ]

    def usual(self) -> Mix:
        """Everybody leaves the defaults alone, which is what request-level batching hopes for."""
        steps = sorted(self.steps)[len(self.steps) // 2]
        return Mix(self.sides[:1], [steps], self.guidance[:1], self.samplers[:1])


def _prompt(seed: int) -> str:
    circle, background = COLOURS[seed % 8], COLOURS[(seed + 3) % 8]
    return f"a {circle} circle on a {background} background, {seed}"


def groups(orders: Sequence[Order], most: int) -> Iterator[list[int]]:
    """Places of orders that can share a pipeline call, at most so many; who came first is first."""
    alike: dict[Hashable, list[int]] = {}
    for place, order in enumerate(orders):
        alike.setdefault(order.kind, []).append(place)
    for places in alike.values():
        for start in range(0, len(places), most):
            yield places[start : start + most]
