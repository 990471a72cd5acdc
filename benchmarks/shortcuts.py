"""What a request gains that lets go of exactness, and how far its pictures are from exact ones."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.step import distance
from benchmarks.timing import Figure, median_ratio, noted, on_one_core
from server.catalog import load_catalog
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.pixels import Inputs
from server.spec import Sampler, TextToImage
from server.stages import Stage
from server.workers.engine import Engine, Ticket
from tests.builders import a_spec

EXACT = "exact"
ASKED: dict[str, dict[str, Any]] = {
    EXACT: {},
    "guidance_end 0.8": {"guidance_end": 0.8},
    "guidance_end 0.5": {"guidance_end": 0.5},
    "guidance_end 0.3": {"guidance_end": 0.3},
    "cache_interval 2": {"cache_interval": 2},
    "cache_interval 3": {"cache_interval": 3},
    "cache_interval 5": {"cache_interval": 5},
    "guidance_end 0.5, cache_interval 2": {"guidance_end": 0.5, "cache_interval": 2},
}
THINGS = ("red circle", "green square", "yellow star", "purple triangle")
PLACES = ("on a blue background", "on a white background", "in the top left on a black background")
PROMPTS = [f"a {thing} {place}" for place in PLACES for thing in THINGS]
HALF = "cache_interval 3 for every second one"
TOGETHER = 16

Pictures = dict[int, NDArray[np.uint8]]
"""By their seeds."""


def a_request(seed: int, **changes: Any) -> TextToImage:
    """With the demo's own sampler, steps and guidance."""
    own = load_catalog()["demo"].defaults
    return a_spec(
        prompt=PROMPTS[seed % len(PROMPTS)],
        seed=seed,
        num_inference_steps=own.num_inference_steps,
        guidance_scale=own.guidance_scale,
        sampler=Sampler(own.sampler),
        **changes,
    )


@dataclass
class Way:
    """Requests that are drawn at once, and what came of them the last time."""

    denoiser: LatentDiffusion
    specs: Sequence[TextToImage]
    pictures: Pictures = field(default_factory=dict)

    def __call__(self) -> None:
        """Through one engine, all together."""
        engine = Engine(self.denoiser, max_step_pixels=10**12)
        for spec in self.specs:
            state = self.denoiser.prepare(Stage(spec=spec), 0, Inputs())
            engine.admit(Ticket(str(spec.seed), 0, state, 0, deadline=float("inf")))
        while engine.busy:
            for outcome in engine.step().outcomes:
                assert outcome.picture is not None, outcome.error
                drawn = outcome.picture.array().astype(np.uint8)
                self.pictures[int(outcome.ticket.id)] = drawn

    def far_from(self, exact: Way) -> str:
        """How far its pictures are from those."""
        seeds = sorted(self.pictures)
        mine, theirs = ([way.pictures[seed] for seed in seeds] for way in (self, exact))
        return distance(mine, theirs)


def figures(rounds: int) -> Iterator[Figure]:
    """(k) What a request may ask for: alone, and sixteen that ask for the same; (l) where only half
    of them do."""
    denoiser = load(load_catalog()["demo"], "cpu", "float32")

    def ways(count: int) -> dict[str, Way]:
        return {
            name: Way(denoiser, [a_request(seed, **changes) for seed in range(count)])
            for name, changes in ASKED.items()
        }

    one, many = ways(1), ways(TOGETHER)
    mixed = zip(many[EXACT].specs, many["cache_interval 3"].specs, strict=True)
    many[HALF] = Way(denoiser, [pair[seed % 2] for seed, pair in enumerate(mixed)])
    alone, together = (on_one_core(each, rounds) for each in (one, many))
    for name in list(ASKED)[1:]:
        by_itself = median_ratio(alone[EXACT], alone[name])
        each = 1000 * statistics.median(together[name]) / TOGETHER  # of one core
        yield noted(
            f"(k) {name}, {TOGETHER} over as many exact ones",
            median_ratio(together[EXACT], together[name]),
            "x",
            f"alone {by_itself:.2f}x; {each:.0f} ms a picture in company; "
            f"from exact: {many[name].far_from(many[EXACT])}",
        )
    yield noted(
        f"(l) {HALF} of {TOGETHER}, over all exact",
        median_ratio(together[EXACT], together[HALF]),
    )
