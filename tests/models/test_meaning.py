"""What only meaning can show: each task does to a picture what its name says, on `demo`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.evaluate import Verdict, judge
from server.catalog import load_catalog
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.pixels import Inputs
from server.spec import AnySpec, ImageToImage, Inpainting, Sampler, TextToImage, Upload
from server.stages import Stage
from server.workers.engine import Engine, Ticket
from tests.builders import a_spec

SIDE = 128
SENT = Upload(key="sent", sha256="", width=SIDE, height=SIDE)
COMMON = a_spec(num_inference_steps=10, sampler=Sampler.DPMPP_2M).model_dump(exclude={"task"})
RED = "a red circle on a blue background"
SEEDS = range(1, 4)

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def demo(one_core: None) -> LatentDiffusion:
    return load(load_catalog()["demo"], "cpu")


@pytest.fixture(scope="module")
def red_circle(demo: LatentDiffusion) -> Pixels:
    return draw(demo, [TextToImage(**COMMON | {"prompt": RED})])[0]


def draw(
    demo: LatentDiffusion, specs: Sequence[AnySpec], inputs: Inputs | None = None
) -> list[Pixels]:
    """All of them in one engine, sharing its steps."""
    engine = Engine(demo, max_step_pixels=16 * SIDE**2)
    for index, spec in enumerate(specs):
        state = demo.prepare(Stage(spec=spec), 0, inputs or Inputs())
        engine.admit(Ticket("gen", index, state, 0, float("inf")))
    drawn: dict[int, Pixels] = {}
    while engine.busy:
        for outcome in engine.step().outcomes:
            assert outcome.picture is not None, outcome.error
            drawn[outcome.ticket.index] = outcome.picture.array().astype(np.uint8)
    return [drawn[index] for index in range(len(specs))]


def seen(pixels: Pixels) -> Verdict:
    return judge(pixels.astype(np.float32))


def apart(a: Pixels, b: Pixels) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_the_higher_the_strength_the_less_is_left_of_the_picture(
    demo: LatentDiffusion, red_circle: Pixels
) -> None:
    strengths = (0, 0.2, 0.4, 0.6, 0.8)
    wish = COMMON | {"prompt": "a red star in the top left on a blue background"}
    specs = [
        ImageToImage(**wish | {"seed": seed}, image=SENT, strength=strength)
        for seed in SEEDS
        for strength in strengths
    ]
    drawn = draw(demo, specs, Inputs(image=red_circle))
    distances = np.array([apart(each, red_circle) for each in drawn]).reshape(len(SEEDS), -1)
    by_strength = distances.mean(axis=0)
    assert by_strength[0] < 1  # only the autoencoder has touched it
    assert list(by_strength) == sorted(by_strength)
    assert by_strength[-1] > 10
    shapes = [seen(each).shape for each in drawn]
    assert shapes[: len(strengths)][0] == "circle"
    assert shapes[len(strengths) - 1 :: len(strengths)] == ["star"] * len(SEEDS)


def test_inpainting_leaves_the_outside_exact_and_draws_the_prompt_inside(
    demo: LatentDiffusion, red_circle: Pixels
) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:108, 20:108] = 255
    wish = COMMON | {"prompt": "a yellow star on a blue background"}
    more = {"padding_mask_crop": None, "keep_outside": True}
    specs = [
        Inpainting(**wish | {"seed": seed}, image=SENT, mask_image=SENT, strength=1, **more)
        for seed in SEEDS
    ]
    for drawn in draw(demo, specs, Inputs(image=red_circle, mask=mask)):
        assert (drawn[mask == 0] == red_circle[mask == 0]).all()
        verdict = seen(drawn)
        assert (verdict.shape, verdict.colour, verdict.background) == ("star", "yellow", "blue")


def test_more_guidance_makes_more_pictures_what_the_prompt_says(demo: LatentDiffusion) -> None:
    """On a harder task than from noise, where the demo checkpoint is right without guidance."""
    place = "in the top left on a blue background"
    shapes, seeds = ("star", "square", "triangle"), range(4)
    start = draw(demo, [TextToImage(**COMMON | {"prompt": f"a red circle {place}"})])[0]

    def right(guidance_scale: float) -> int:
        wish = {"guidance_scale": guidance_scale}
        specs = [
            ImageToImage(
                **COMMON | wish | {"prompt": f"a red {shape} {place}", "seed": seed},
                image=SENT,
                strength=0.5,
            )
            for shape in shapes
            for seed in seeds
        ]
        wanted = [shape for shape in shapes for _ in seeds]
        drawn = draw(demo, specs, Inputs(image=start))
        return sum(seen(each).shape == shape for each, shape in zip(drawn, wanted, strict=True))

    counts = [right(guidance_scale) for guidance_scale in (1.0, 2.0, 4.0)]
    assert counts == sorted(set(counts)), counts
    assert counts[-1] >= 8


def test_a_negative_prompt_removes_what_it_names(demo: LatentDiffusion) -> None:
    def circles(negative_prompt: str) -> int:
        wish = {"prompt": "a red shape on a white background", "negative_prompt": negative_prompt}
        specs = [TextToImage(**COMMON | wish | {"seed": seed}) for seed in range(12)]
        return sum(seen(each).shape == "circle" for each in draw(demo, specs))

    assert circles("") >= 3
    assert circles("circle") == 0
