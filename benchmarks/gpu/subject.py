"""A checkpoint under measurement: our engine on it, and the models that it is made of."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.checkpoints import Model, RandomWeights
from benchmarks.gpu.device import seconds, waited
from server.forecast import Speed
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.models.memory import MemoryGauge
from server.pixels import Inputs
from server.spec import AnySpec, Sampler
from server.stages import Stage
from server.workers.compiling import Compiling
from server.workers.engine import Engine, Ticket
from server.workers.native import native_stage
from server.workers.warmup import WarmUp

CAPACITY = 16
"""Pictures side by side: the setting's default."""
GUIDANCE = (5.0, 7.5, 9.0)
SAMPLERS = (Sampler.EULER, Sampler.DPMPP_2M, Sampler.DDIM)
SPREAD = (2 / 3, 1.0, 4 / 3)
"""Of mixed step counts, around their mean."""
SETTLING = 3
"""Steps that are not counted."""
MANY_STEPS = 100
"""Of tickets that are dropped before they are done."""


@dataclass
class Subject:
    """One loaded checkpoint, warmed up as a worker does it."""

    model: Model
    source: RandomWeights
    denoiser: LatentDiffusion
    speed: Speed
    seconds_to_ready: float

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.denoiser.device

    @property
    def cap(self) -> int:
        """Rows times pixels of a step, as a worker takes it from its warm-up."""
        return self.speed.full_rows * self.speed.native_pixels

    @property
    def weights_bytes(self) -> int:
        """Of all its models."""
        made = [each for each in self.source.made.values() if isinstance(each, torch.nn.Module)]
        return sum(weight.nbytes for model in made for weight in model.parameters())

    def part(self, name: str) -> Any:
        """A model or tokenizer, the very one that the engine computes with."""
        return self.source.made[name]

    def ticket(self, spec: AnySpec) -> Ticket:
        """Encoded, and ready for an engine."""
        state = self.denoiser.prepare(Stage(spec=spec), 0, Inputs())
        return Ticket(str(spec.seed), 0, state, 0, deadline=float("inf"))

    def step_seconds(self, rows: int, calls: int) -> float:
        """The mean of so many steps of an engine, all rows in each."""
        return self.stepping(rows, calls).seconds() / calls

    def stepping(self, rows: int, calls: int) -> Stepping:
        """An engine that has taken a few steps with so many rows."""
        return Stepping(self, rows, calls)


class Stepping:
    """Steps of an engine whose tickets do not finish meanwhile."""

    def __init__(self, subject: Subject, rows: int, calls: int) -> None:
        self._subject, self._calls = subject, calls
        self._engine = Engine(subject.denoiser, max_step_pixels=10**12)
        guidance = {"guidance_scale": 1.0} if rows == 1 else {}
        for _ in range(max(1, rows // 2)):
            spec = request(subject.model, num_inference_steps=MANY_STEPS, **guidance)
            self._engine.admit(subject.ticket(spec))
        self._run(SETTLING)

    def __call__(self) -> None:
        """So many steps; the device may be behind."""
        self._run(self._calls)

    def seconds(self) -> float:
        """Of so many steps, until the device is done."""
        return seconds(self, self._subject.device)

    def _run(self, steps: int) -> None:
        for _ in range(steps):
            step = self._engine.step()
            assert not step.outcomes, step.outcomes


def loaded(
    model: Model, device: torch.device, dtype: str, full_rows: int | None = None, **fitting: Any
) -> Subject:
    """As a worker begins: by its own loading and compiling, and its own warm-up.

    Args:
        full_rows: as many share a step; measured, unless it is said.
        fitting: what `load` is told besides.
    """
    began = time.perf_counter()
    source = RandomWeights(model.configs, device)
    denoiser = load(model.card, str(device), dtype, source=source, **fitting)
    if denoiser.compiled is not None:
        record = fitting["compiled_dir"] / f"{model.name}.seconds"
        Compiling(denoiser, denoiser.compiled, model.card, 2 * CAPACITY, record).run()
    gauge = MemoryGauge(device)
    speed = WarmUp(denoiser, model.card, 2 * CAPACITY, gauge, full_rows).run()
    return Subject(model, source, denoiser, speed, time.perf_counter() - began)


_seeds = itertools.count(1)


def request(model: Model, **changes: Any) -> AnySpec:
    """A guided picture of the checkpoint's own size, of a prompt that nobody has encoded yet."""
    seed = next(_seeds)
    prompt = f"a photograph of house number {seed}, in a street by the sea, in the evening light"
    usual = {"seed": seed, "prompt": prompt, "sampler": Sampler.EULER}
    spec: AnySpec = native_stage(model.card, **(usual | changes)).spec
    return spec


def mixed(
    model: Model,
    spread: Sequence[float] = SPREAD,
    guidance: Sequence[float] = GUIDANCE,
    samplers: Sequence[Sampler] = SAMPLERS,
) -> Iterator[AnySpec]:
    """Requests without end: samplers, guidance and step counts mixed, each as often as the others,
    so that the mean of the steps is the model's."""
    draw = random.Random(0)
    kinds = list(itertools.product(spread, guidance, samplers))
    while True:
        draw.shuffle(kinds)
        for share, scale, sampler in kinds:
            yield request(
                model,
                num_inference_steps=round(share * model.steps),
                guidance_scale=scale,
                sampler=sampler,
            )


def prepared_seconds(subject: Subject) -> float:
    """To encode a new prompt and to draw its noise."""
    began = waited(subject.device)
    subject.ticket(request(subject.model))
    return waited(subject.device) - began
