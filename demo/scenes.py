"""Procedural pictures: one flat shape on a flat background, 128 x 128 pixels.

A :class:`Scene` holds what a caption may say (shape, colours, size, place) and where the shape
really is.  Everything is drawn from an explicit ``random.Random``, so a seed names a data set.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CANVAS = 128
SUPERSAMPLE = 4
MARGIN = 4.0

Point = tuple[float, float]
Triple = tuple[str, str, str]

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (222, 36, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 222, 50),
    "green": (36, 164, 72),
    "blue": (36, 84, 224),
    "purple": (140, 52, 184),
    "black": (16, 16, 20),
    "white": (248, 248, 248),
}
COLOURS = tuple(PALETTE)

# Radius in pixels; ``None`` is what a caption that names no size gets.
RADII: dict[str | None, tuple[float, float]] = {
    None: (30.0, 42.0),
    "small": (17.0, 21.0),
    "medium": (28.0, 33.0),
    "large": (41.0, 47.0),
}
SIZES = tuple(size for size in RADII if size)

# Column and row of the shape's centre on a 3 x 3 grid, 0 being the middle.
PLACES: dict[str, tuple[int, int]] = {
    "top left": (-1, -1),
    "top": (0, -1),
    "top right": (1, -1),
    "left": (-1, 0),
    "middle": (0, 0),
    "right": (1, 0),
    "bottom left": (-1, 1),
    "bottom": (0, 1),
    "bottom right": (1, 1),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture; ``size`` and ``place`` are None where no caption may mention them."""

    shape: str
    colour: str
    background: str
    size: str | None
    place: str | None
    radius: float
    centre: Point

    @property
    def triple(self) -> Triple:
        """The attribute combination by which scenes are held out."""
        return self.shape, self.colour, self.background


def _regular(count: int, first: float, radius: float = 1.0) -> list[Point]:
    """Corners of a regular polygon around the origin, the first at angle ``first`` in turns."""
    turns = (2 * math.pi * (first + i / count) for i in range(count))
    return [(radius * math.cos(t), radius * math.sin(t)) for t in turns]


def _star() -> list[Point]:
    outer, inner = _regular(5, -0.25), _regular(5, -0.15, 0.42)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def _cross() -> list[Point]:
    arm, end = 0.32, 0.95
    quarter = [(-arm, -end), (arm, -end), (arm, -arm)]
    turned = [quarter]
    for _ in range(3):
        turned.append([(-y, x) for x, y in turned[-1]])
    return [point for part in turned for point in part]


def _heart() -> list[Point]:
    def at(t: float) -> Point:
        wave = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return math.sin(t) ** 3, -(wave + 2.5) / 16

    return [at(2 * math.pi * i / 96) for i in range(96)]


# Each shape is filled outlines in units of its radius, y pointing down; the second cuts a hole.
OUTLINES: dict[str, tuple[list[Point], ...]] = {
    "circle": (_regular(96, 0.0, 0.95),),
    "square": (_regular(4, 0.125, 1.15),),
    "triangle": ([(-1.0, 0.8), (1.0, 0.8), (0.0, -0.95)],),
    "star": (_star(),),
    "heart": (_heart(),),
    "diamond": ([(0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)],),
    "cross": (_cross(),),
    "ring": (_regular(96, 0.0), _regular(96, 0.0, 0.52)),
}
SHAPES = tuple(OUTLINES)


def coverage(shape: str, radius: float, centre: Point) -> NDArray[np.float32]:
    """How much of each pixel the shape covers, in 0..1: (128, 128)."""
    mask = Image.new("L", (CANVAS * SUPERSAMPLE, CANVAS * SUPERSAMPLE))
    draw = ImageDraw.Draw(mask)
    for outline, fill in zip(OUTLINES[shape], (255, 0), strict=False):
        scaled = [
            ((centre[0] + radius * x) * SUPERSAMPLE, (centre[1] + radius * y) * SUPERSAMPLE)
            for x, y in outline
        ]
        draw.polygon(scaled, fill=fill)
    return np.asarray(mask.reduce(SUPERSAMPLE), dtype=np.float32) / np.float32(255)


def draw(scene: Scene) -> NDArray[np.float32]:
    """The picture itself: (128, 128, 3) RGB in 0..255."""
    alpha = coverage(scene.shape, scene.radius, scene.centre)[..., None]
    front = np.asarray(PALETTE[scene.colour], dtype=np.float32)
    back = np.asarray(PALETTE[scene.background], dtype=np.float32)
    picture: NDArray[np.float32] = back + alpha * (front - back)
    return picture


def _place_shape(rng: random.Random, place: str | None, radius: float) -> Point:
    """A centre for the shape: near the middle unless a place is named, always inside."""
    column, row = PLACES[place] if place else (0, 0)
    jitter = 3.0 if place else 6.0

    def along(step: int) -> float:
        wanted = CANVAS / 2 + 34.0 * step + rng.uniform(-jitter, jitter)
        return min(max(wanted, radius + MARGIN), CANVAS - radius - MARGIN)

    return along(column), along(row)


def sample_scene(rng: random.Random, triples: list[Triple]) -> Scene:
    """A random scene of one of the given combinations; half name a size, half a place."""
    shape, colour, background = rng.choice(triples)
    size = rng.choice(SIZES) if rng.random() < 0.5 else None
    place = rng.choice(tuple(PLACES)) if rng.random() < 0.5 else None
    radius = rng.uniform(*(RADII[size] if size or not place else RADII["medium"]))
    return Scene(shape, colour, background, size, place, radius, _place_shape(rng, place, radius))


def split_triples(held_out: float = 0.12, seed: int = 7) -> tuple[list[Triple], list[Triple]]:
    """All (shape, colour, background) combinations as (trained on, held out)."""
    every = [t for t in product(SHAPES, COLOURS, COLOURS) if t[1] != t[2]]
    every.remove(("circle", "red", "blue"))  # the first prompt anybody tries is always trained on
    random.Random(seed).shuffle(every)
    cut = int(len(every) * held_out)
    return [("circle", "red", "blue"), *every[cut:]], every[:cut]
