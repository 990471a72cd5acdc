"""What a sampler does to latents, written down as numbers, for all steps before the first.

Nearly every sampler only adds up latents, predictions and noise of this step and a few before, each
times a number that follows from the schedule alone:

    latents after step i  =  sum over k of  numbers[i, k] * (latents | prediction | noise)[i - back]

The numbers are read off diffusers' own sampler, which takes its steps with unit vectors in the
place of pictures. Knows no tickets and no models.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from server.models.recent import Recent

MOST_TERMS = 8
"""Of a sum. Samplers that correct what they have done before go back to the first step."""
CHECKS = 8
"""Random numbers that are carried along beside the unit vectors, to see that the sums are right."""
TOLERANCE = 1e-5
RANDOM = 10.0
"""How large those are: larger than what any sampler would clip."""
MOST_STEPS = 200
"""To read off more takes longer than it is worth."""
NEGLIGIBLE = 1e-9
"""Times the largest number of its step, a number is a rounding error."""
MOST_KEPT, MOST_KEPT_BYTES = 256, 8 * 2**20


class Of(IntEnum):
    """What is multiplied."""

    LATENTS = 0
    PREDICTION = 1
    NOISE = 2


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a sum."""

    of: Of
    back: int
    """Steps before this one."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Steps of one sampler, one after the other. Holds no ticket's state: any number may share
    it."""

    terms: tuple[tuple[Term, ...], ...]
    reach: int
    """How many steps back they look at most."""
    numbers: torch.Tensor  # (steps, MOST_TERMS), on the device, with zeros at the end
    scales: torch.Tensor  # (steps, 1, 1, 1, 1), on the device: latents times this go in
    scales_anything: bool
    noise: tuple[torch.dtype | None, ...]
    """In which precision each step draws its noise, if it does."""
    keeps: torch.Tensor  # (steps, 2, 1, 1, 1, 1), on the device
    """What is kept of a picture looks after the step like the picture times the first number and
    noise times the second."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.numbers.nbytes + self.scales.nbytes + self.keeps.nbytes


def record(
    sampler: Any,
    timesteps: Sequence[torch.Tensor],
    arguments: dict[str, Any],
    dtype: torch.dtype,
    device: torch.device,
) -> Recurrence | None:
    """What a sampler does at these timesteps. None where that is no sum of a few terms, or is not
    for the schedule alone to say, as where it clips.

    Args:
        sampler: at its first step; it is not changed.
        arguments: of its `step`, besides the usual ones.
        dtype: of the latents that this will be done to.
    """
    generator = torch.Generator()
    calm = generator.get_state()
    if "generator" in arguments:
        arguments = arguments | {"generator": generator}
    with torch.inference_mode():
        steps = _taken(copy.deepcopy(sampler), timesteps, arguments, contextlib.nullcontext())
        if not torch.equal(generator.get_state(), calm):  # to watch it costs three times as much
            steps = _taken(copy.deepcopy(sampler), timesteps, arguments, _Draws())
    terms = [_terms(step.numbers, i) for i, step in enumerate(steps)]
    if not steps or any(len(each) > MOST_TERMS or _old_noise(each) for each in terms):
        return None
    asked = [step.asked[0] if step.asked else None for step in steps]
    return Recurrence(
        terms=tuple(terms),
        reach=max(term.back for each in terms for term in each),
        numbers=torch.tensor(list(map(_padded, steps, terms, count()))).to(device),
        scales=torch.tensor([step.scale for step in steps]).view(-1, 1, 1, 1, 1).to(device),
        scales_anything=any(step.scale != 1 for step in steps),
        noise=tuple(dtype if each is torch.float64 else each for each in asked),
        keeps=torch.tensor([step.keeps for step in steps]).view(-1, 2, 1, 1, 1, 1).to(device),
    )


def _padded(step: _Step, terms: Sequence[Term], number: int) -> list[float]:
    found = [step.numbers[_column(number - term.back, term.of)] for term in terms]
    return found + [0.0] * (MOST_TERMS - len(found))


class Recurrences:
    """Those of one checkpoint that were used last. May be called from several threads."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._device = device
        self._known: Recent[_Found] = Recent(MOST_KEPT, MOST_KEPT_BYTES)

    def of(
        self, sampler: Any, timesteps: torch.Tensor, arguments: dict[str, Any], *made_of: Hashable
    ) -> Recurrence | None:
        """As `record`.

        Args:
            made_of: all that samplers of this checkpoint differ by, but for where they begin.
        """
        if not 0 < len(timesteps) <= MOST_STEPS:
            return None

        def make() -> _Found:
            steps = timesteps.unbind()
            return _Found(record(sampler, steps, arguments, self._dtype, self._device))

        begins = getattr(sampler, "begin_index", None), float(timesteps[0]), len(timesteps)
        return self._known.get((made_of, begins), make).recurrence


@dataclass(frozen=True, slots=True)
class _Found:
    recurrence: Recurrence | None

    @property
    def nbytes(self) -> int:
        return self.recurrence.nbytes if self.recurrence else 0


class _Draws(TorchFunctionMode):
    """Hands out `noise` instead of drawing it, and notes what was asked for. In this thread
    alone."""

    noise: torch.Tensor
    asked: list[torch.dtype]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.randn:
            self.asked.append(kwargs["dtype"])
            return self.noise
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, slots=True)
class _Step:
    """What was read off one step."""

    scale: float
    numbers: list[float]
    """Of each unit vector in what it makes."""
    asked: list[torch.dtype]
    """Whoever asks for noise in float32 does so whatever the latents are in; whoever asks for
    float64, in which this is done, wants it as the latents are."""
    keeps: tuple[float, float]


def _taken(
    sampler: Any,
    timesteps: Sequence[torch.Tensor],
    arguments: dict[str, Any],
    watch: contextlib.AbstractContextManager[Any],
) -> list[_Step]:
    """All steps; none where one of them is not the sum that its numbers say."""
    units = 3 * len(timesteps)
    vectors = _vectors(len(timesteps), float(sampler.init_noise_sigma))
    steps = []
    for i, timestep in enumerate(timesteps):
        latents, prediction, noise = vectors[3 * i : 3 * i + 3].unbind()
        asked: list[torch.dtype] = []
        if isinstance(watch, _Draws):
            watch.noise, watch.asked = noise, asked
        seen = sampler.scale_model_input(latents, timestep).flatten()
        with watch:
            made = sampler.step(prediction, timestep, latents, return_dict=False, **arguments)[0]
        made, kept, last = made.flatten(), latents.flatten(), i + 1 == len(timesteps)
        if hasattr(sampler, "add_noise") and not last:
            kept = sampler.add_noise(latents, noise, timesteps[i + 1][None]).flatten()
        if len(asked) > 1 or not all(_is_sum(each, vectors, units) for each in (seen, made, kept)):
            return []
        if not last:
            vectors[_column(i + 1, Of.LATENTS), 0, 0, 0, units:] = made[units:]
        one, other = _column(i, Of.LATENTS), _column(i, Of.NOISE)
        keeps = float(kept[one]), float(kept[other])
        steps.append(_Step(float(seen[one]), made[:units].tolist(), asked, keeps))
    return steps


def _is_sum(made: torch.Tensor, vectors: torch.Tensor, units: int) -> bool:
    """Whether the random numbers behind the unit vectors come out as the numbers before say."""
    numbers, random = made[:units], vectors[:, 0, 0, 0, units:]
    wrong = (made[units:] - numbers @ random).abs()
    return bool((wrong <= TOLERANCE * (numbers.abs() @ random.abs())).all())


def _vectors(steps: int, spread: float) -> torch.Tensor:
    """A unit vector for the latents, the prediction and the noise of each step, and random numbers
    behind it: (3 * steps, 1, 1, 1, 3 * steps + CHECKS)."""
    # Not `torch.randn`, which is answered by `_Draws` here.
    random = torch.empty(3 * steps, CHECKS, dtype=torch.float64)
    random.normal_(generator=torch.Generator().manual_seed(0)).mul_(RANDOM)
    random[:1] *= max(1.0, spread)
    vectors = torch.cat([torch.eye(3 * steps, dtype=torch.float64), random], dim=1)
    return vectors[:, None, None, None]


def _column(step: int, of: Of) -> int:
    return 3 * step + of


def _terms(numbers: Sequence[float], step: int) -> tuple[Term, ...]:
    least = NEGLIGIBLE * max(map(abs, numbers))
    found = [column for column, number in enumerate(numbers) if abs(number) > least]
    found = found or [_column(step, Of.LATENTS)]  # times nothing: a sum has a term at least
    return tuple(Term(Of(column % 3), step - column // 3) for column in reversed(found))


def _old_noise(terms: Sequence[Term]) -> bool:
    return any(term.of is Of.NOISE and term.back for term in terms)
