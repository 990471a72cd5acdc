"""The engine against bare UNet and autoencoder calls, and against diffusers' own pipeline."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.timing import Figure, alternate, at_least, at_most, median_ratio
from server.models.diffusion import LatentDiffusion
from server.models.samplers import CLASSES
from server.pixels import Inputs
from server.spec import Sampler, TextToImage
from server.stages import Stage
from server.workers.engine import Engine, Ticket
from tests.builders import a_spec

GENERATIONS = 32
IN_FLIGHT = 16
STEPS = (10, 15, 25)
GUIDANCE = (1.0, 4.0, 7.5)
SAMPLERS = (Sampler.EULER, Sampler.DPMPP_2M, Sampler.DDIM)


@dataclass
class Subject:
    """A checkpoint under measurement, and what it is asked to draw."""

    name: str
    denoiser: LatentDiffusion
    pipeline: StableDiffusionPipeline
    specs: list[TextToImage]
    rows: list[int] = field(default_factory=list)
    """Row counts of the engine's UNet calls in its last run."""
    decodes: list[int] = field(default_factory=list)
    """Batch sizes of its autoencoder calls: pictures of one size that finish in one step."""

    def draw_with_engine(self) -> None:
        """All specs through the engine, `IN_FLIGHT` at a time, as a worker would."""
        self.denoiser.make_room()  # else it alone would know the prompts from the round before
        engine = Engine(self.denoiser, max_step_pixels=10**12)
        waiting, in_flight = list(reversed(self.specs)), 0
        self.rows, self.decodes = [], []
        while waiting or engine.busy:
            while waiting and in_flight < IN_FLIGHT:
                engine.admit(self.ticket(waiting.pop()))
                in_flight += 1
            step = engine.step()
            self.rows.append(step.rows)
            if step.outcomes:
                self.decodes.append(len(step.outcomes))
            for outcome in step.outcomes:
                assert outcome.picture is not None, outcome.error
                outcome.picture.array()
                in_flight -= 1

    def ticket(self, spec: TextToImage) -> Ticket:
        """Encoded, and ready for an engine."""
        state = self.denoiser.prepare(Stage(spec=spec), 0, Inputs())
        return Ticket(str(spec.seed), 0, state, 0, deadline=float("inf"))

    def draw_one_by_one(self) -> None:
        """One pipeline call for each generation."""
        for spec in self.specs:
            self._call([spec])

    def draw_in_groups(self) -> None:
        """Request-level batching: one pipeline call for those that can share one."""
        for group in self.groups():
            self._call(group)

    def groups(self) -> list[list[TextToImage]]:
        """Specs that agree in what a pipeline call fixes for its whole batch, at most 16."""
        alike: dict[Any, list[TextToImage]] = defaultdict(list)
        for spec in self.specs:
            alike[spec.num_inference_steps, spec.guidance_scale, spec.sampler].append(spec)
        return [
            specs[i : i + IN_FLIGHT]
            for specs in alike.values()
            for i in range(0, len(specs), IN_FLIGHT)
        ]

    def call_bare_serially(self) -> None:
        """The UNet and autoencoder calls of one generation after the other, and nothing else."""
        for spec in self.specs:
            bare_calls(self.pipeline, [2 if spec.guided else 1] * spec.num_inference_steps, [1])

    def call_bare_as_batched(self) -> None:
        """UNet and autoencoder calls of the batch sizes that the engine made."""
        bare_calls(self.pipeline, self.rows, self.decodes)

    def _call(self, group: list[TextToImage]) -> None:
        spec = group[0]
        kind, own = CLASSES[spec.sampler]
        self.pipeline.scheduler = kind.from_config(self.pipeline.scheduler.config, **own)
        self.pipeline(
            [s.prompt for s in group],
            width=spec.width,
            height=spec.height,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            generator=[torch.Generator().manual_seed(s.seed) for s in group],
        )


def mixed_specs(size: int) -> list[TextToImage]:
    """The same 32 generations every time: mixed steps, guidance and samplers."""
    draw = random.Random(0)
    return [
        a_spec(
            seed=seed,
            prompt=f"a red circle on a blue background {seed}",
            width=size,
            height=size,
            num_inference_steps=draw.choice(STEPS),
            guidance_scale=draw.choice(GUIDANCE),
            sampler=draw.choice(SAMPLERS),
        )
        for seed in range(GENERATIONS)
    ]


@torch.inference_mode()
def bare_calls(pipeline: StableDiffusionPipeline, rows: list[int], decodes: list[int]) -> None:
    """UNet calls of these row counts, then autoencoder calls of these batch sizes."""
    config = pipeline.unet.config
    side = config.sample_size
    for count in rows:
        pipeline.unet(
            torch.zeros(count, config.in_channels, side, side),
            torch.full((count,), 500.0),
            encoder_hidden_states=torch.zeros(count, 77, config.cross_attention_dim),
            return_dict=False,
        )
    for count in decodes:
        pipeline.vae.decode(torch.zeros(count, 4, side, side), return_dict=False)


def overhead(subject: Subject, rounds: int) -> Figure:
    """(a) What the engine adds to one picture."""
    spec = subject.specs[0].model_copy(update={"num_inference_steps": 20, "guidance_scale": 4.0})

    def with_engine() -> None:
        engine.admit(subject.ticket(spec))
        while engine.busy:
            for outcome in engine.step().outcomes:
                assert outcome.picture is not None, outcome.error
                outcome.picture.array()

    engine = Engine(subject.denoiser, max_step_pixels=10**12)
    seconds = alternate(
        {
            "engine": with_engine,
            "bare": lambda: bare_calls(subject.pipeline, [2] * 20, [1]),
        },
        rounds,
    )
    ratio = median_ratio(seconds["engine"], seconds["bare"])
    detail = ", ".join(f"{n} {1000 * statistics.median(s):.0f} ms" for n, s in seconds.items())
    return at_most(
        f"(a) engine over bare calls, one picture, {subject.name}", ratio, 1.03, "x", detail
    )


def throughput(subject: Subject, rounds: int) -> dict[str, list[float]]:
    """(b, c) Seconds of each way to draw the same 32 generations."""
    subject.draw_with_engine()
    return alternate(
        {
            "one pipeline call each": subject.draw_one_by_one,
            "pipeline calls in groups": subject.draw_in_groups,
            "engine": subject.draw_with_engine,
            "bare calls, serial": subject.call_bare_serially,
            "bare calls, batched": subject.call_bare_as_batched,
        },
        rounds,
    )


def throughput_figures(subject: Subject, seconds: dict[str, list[float]]) -> list[Figure]:
    """The ratios that the bars are about."""
    engine = seconds["engine"]
    gain = median_ratio(seconds["one pipeline call each"], engine)
    possible = median_ratio(seconds["bare calls, serial"], seconds["bare calls, batched"])
    grouped = median_ratio(seconds["pipeline calls in groups"], engine)
    mean_rows = statistics.mean(subject.rows)
    medians = ", ".join(f"{n} {statistics.median(s):.2f} s" for n, s in seconds.items())
    name = subject.name
    figures = [
        at_least(
            f"(b) over one pipeline call each, share of what rows give, {name}",
            gain / possible,
            0.95,
            "x",
            f"engine {gain:.2f}x, bare calls {possible:.2f}x, mean {mean_rows:.1f} rows; {medians}",
        ),
        at_least(
            f"(c) over request-level batching, {name}",
            grouped,
            1.3,
            "x",
            f"{GENERATIONS} generations fall into {len(subject.groups())} groups",
        ),
    ]
    if name == "launch-bound":
        figures.append(at_least(f"(b) over one pipeline call each, {name}", gain, 3.0))
    return figures
