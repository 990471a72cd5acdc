"""Judges pictures by their pixels, and the checkpoint by prompts it never saw.

``python -m demo.evaluate`` prints the scores of 200 held-out prompts and of 20 seeds of the first
prompt that anybody tries; ``--sheet FILE`` also saves the first 32 pictures.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from demo.captions import describe
from demo.scenes import (
    CANVAS,
    COLOURS,
    PALETTE,
    PLACES,
    SHAPES,
    Scene,
    coverage,
    sample_scene,
    split_triples,
)

CHECKPOINT = Path(__file__).parents[1] / "server" / "models" / "demo"
GOOD_FIT = 0.8
OFF_CENTRE = 10.0
COLOUR_TOLERANCE = 45.0

FIRST_PROMPT = "a red circle on a blue background"
FIRST_SCENE = Scene("circle", "red", "blue", None, None, 36.0, (CANVAS / 2, CANVAS / 2))

Picture = NDArray[np.float32]
Mask = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a picture shows; ``fit`` is the overlap (IoU) with the best ideal shape."""

    shape: str
    colour: str
    background: str
    place: str
    fit: float


def nearest_colour(pixels: Picture) -> str:
    """The palette's name for the median of (count, 3) pixels, or "none" if nothing is near."""
    middle = np.median(pixels, axis=0)
    distances = [float(np.linalg.norm(middle - np.asarray(PALETTE[name]))) for name in COLOURS]
    best = int(np.argmin(distances))
    return COLOURS[best] if distances[best] < COLOUR_TOLERANCE else "none"


def object_mask(picture: Picture) -> tuple[Mask, Picture]:
    """Where the picture is not background, (128, 128), and its background, (3,).

    A pixel counts as object by how far it is from the background towards the strongest colour.
    """
    border = np.concatenate([picture[:3], picture[-3:]]).reshape(-1, 3)
    background = np.median(border, axis=0)
    distance = np.linalg.norm(picture - background, axis=2)
    strongest = float(np.percentile(distance, 99.5))
    mask = distance > max(strongest / 2, 20.0)
    return mask.astype(np.float32), background


def overlap(mask: Mask, other: Mask) -> float:
    """Intersection over union of two masks with values in 0..1."""
    return float(np.minimum(mask, other).sum() / max(np.maximum(mask, other).sum(), 1.0))


def fit_shape(mask: Mask, shape: str) -> float:
    """Overlap with the ideal shape of the same area and centre of mass."""
    ideal = coverage(shape, 40.0, (CANVAS / 2, CANVAS / 2))
    radius = 40.0 * float(np.sqrt(mask.sum() / ideal.sum()))
    rows, columns = np.mgrid[:CANVAS, :CANVAS] + 0.5

    def centre_of(weights: Mask) -> NDArray[np.float64]:
        summed = np.array([(weights * columns).sum(), (weights * rows).sum()], dtype=np.float64)
        return summed / float(weights.sum())

    offset = (centre_of(ideal) - CANVAS / 2) * radius / 40.0
    x, y = centre_of(mask) - offset
    return overlap(mask, coverage(shape, radius, (float(x), float(y))))


def find_place(mask: Mask) -> str:
    """The name of the place of the mask's bounding box."""
    step = []
    for axis in (0, 1):
        filled = np.flatnonzero(mask.max(axis=axis))
        offset = (filled[0] + filled[-1] + 1) / 2 - CANVAS / 2
        step.append(0 if abs(offset) < OFF_CENTRE else int(np.sign(offset)))
    return next(name for name, cell in PLACES.items() if cell == tuple(step))


def judge(picture: Picture) -> Verdict:
    """Say what a (128, 128, 3) RGB picture in 0..255 shows."""
    mask, background = object_mask(picture)
    back = nearest_colour(background[None])
    if not 40 < mask.sum() < 0.9 * mask.size:
        return Verdict("none", "none", back, "none", 0.0)
    fits = {shape: fit_shape(mask, shape) for shape in SHAPES}
    shape = max(fits, key=lambda name: fits[name])
    named = shape if fits[shape] >= GOOD_FIT else "none"
    return Verdict(named, nearest_colour(picture[mask > 0]), back, find_place(mask), fits[shape])


def agreement(scene: Scene, verdict: Verdict) -> dict[str, bool]:
    """Which attributes of the scene the picture got right; place only where it was said."""
    right = {
        "background": verdict.background == scene.background,
        "colour": verdict.colour == scene.colour,
        "shape": verdict.shape == scene.shape,
    }
    if scene.place:
        right["place"] = verdict.place == scene.place
    return right


def held_out_prompts(count: int, seed: int = 23) -> list[tuple[str, Scene]]:
    """Prompts in all wordings for combinations that were never trained on."""
    rng = random.Random(seed)
    _, held_out = split_triples()
    scenes = [sample_scene(rng, held_out) for _ in range(count)]
    return [(describe(scene, rng), scene) for scene in scenes]


def paint(
    pipeline: StableDiffusionPipeline, prompts: list[str], steps: int = 20, guidance: float = 4.0
) -> list[Picture]:
    """Draw prompts in batches of 16, prompt ``i`` with seed ``i``."""
    pictures: list[Picture] = []
    for start in range(0, len(prompts), 16):
        part = prompts[start : start + 16]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        drawn = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=seeds,
            output_type="np",
        ).images
        pictures.extend(np.asarray(image, dtype=np.float32) * 255 for image in drawn)
    return pictures


def load(folder: Path) -> StableDiffusionPipeline:
    """The checkpoint in single precision on the processor."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sheet(pictures: list[Picture], columns: int = 8) -> Image.Image:
    """The pictures side by side in rows."""
    rows = [
        np.concatenate(pictures[i : i + columns], axis=1)
        for i in range(0, len(pictures) - columns + 1, columns)
    ]
    return Image.fromarray(np.concatenate(rows).round().clip(0, 255).astype(np.uint8))


def score(cases: list[tuple[str, Scene]], pictures: list[Picture], verbose: bool) -> str:
    """The share of pictures right in each attribute, in words."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for (prompt, scene), picture in zip(cases, pictures, strict=True):
        verdict = judge(picture)
        marks = agreement(scene, verdict)
        asked.update(marks.keys())
        right.update(name for name, good in marks.items() if good)
        if verbose and not all(marks.values()):
            print("wrong:", prompt, "->", verdict)
    return ", ".join(f"{name} {right[name] / asked[name]:.1%}" for name in asked)


def main() -> None:
    """Print scores of held-out prompts and of many seeds of one plain prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print every wrong picture")
    options = parser.parse_args()
    pipeline = load(options.checkpoint)
    for title, cases in (
        (f"{options.count} held-out prompts", held_out_prompts(options.count)),
        (f"20 x {FIRST_PROMPT!r}", [(FIRST_PROMPT, FIRST_SCENE)] * 20),
    ):
        started = time.time()
        prompts = [prompt for prompt, _ in cases]
        pictures = paint(pipeline, prompts, options.steps, options.guidance)
        seconds = (time.time() - started) / len(cases)
        print(f"{title}, {seconds:.2f} s each: {score(cases, pictures, options.verbose)}")
        if options.sheet and len(cases) == options.count:
            sheet(pictures[:32]).save(options.sheet, optimize=True)


if __name__ == "__main__":
    main()
