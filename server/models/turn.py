"""The arithmetic around one UNet call, for all its tickets at once: what goes in, guidance, and the
step of every sampler that can be written down.

On a GPU a tensor operation of sixteen tickets takes as long as that of one, and nothing here waits
for the device: all numbers are there before the first step. Knows no prompts and no pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from server.models.recurrence import Of, Recurrence, Term
from server.models.state import State


def unet_input(states: Sequence[State]) -> torch.Tensor:
    """Scaled as their samplers want it, a row for each of guidance: (R, channels, h, w)."""
    rows = [state for state in states for _ in range(state.rows)]
    samples = torch.cat([_own_sample(state) for state in rows])
    if any(state.recurrence and state.recurrence.scales_anything for state in states):
        scales = torch.cat([_scale(state) for state in rows])  # (R, 1, 1, 1)
        samples = (samples * scales).to(samples.dtype)
    extras = [state.canvas.extra for state in rows if state.canvas.extra is not None]
    return torch.cat([samples, torch.cat(extras)], dim=1) if extras else samples


@dataclass(frozen=True, slots=True)
class Stepped:
    """What follows from a UNet call for one ticket."""

    guided: torch.Tensor  # (1, channels, h, w), in float32 where it was mixed of two rows
    latents: torch.Tensor | None  # (1, channels, h, w); None where its own sampler has to step
    found: torch.Tensor | None = None  # (rows, channels, h, w)
    """What it will use again; of this ticket alone, so that no other's is kept with it."""


class Turn:
    """A UNet call that was made. What follows from it is worked out for all its tickets when the
    first of them asks; so until then none is changed, and the call can be made again."""

    def __init__(
        self, states: Sequence[State], noise: torch.Tensor, found: torch.Tensor | None = None
    ) -> None:
        """noise, found: a row or two for each ticket: (R, channels, h, w). Unguided; and what the
        call found, if any ticket uses that again."""
        self._states = list(states)
        self._noise = noise
        self._found = found
        self._drawn: list[torch.Tensor | None] | None = None
        self._stepped: list[Stepped] | None = None

    def stepped(self, number: int) -> Stepped:
        """What follows for this ticket of the call."""
        if self._drawn is None:
            # Kept where what follows fails: a generator that draws twice draws another picture.
            self._drawn = _drawn(self._states)
        if self._stepped is None:
            self._stepped = _stepped(self._states, self._drawn, self._noise, self._found)
        return self._stepped[number]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One ticket's share of a turn."""

    turn: Turn
    number: int

    def stepped(self) -> Stepped:
        """What follows from it."""
        return self.turn.stepped(self.number)


def _own_sample(state: State) -> torch.Tensor:
    """Not yet scaled where that is done for all."""
    return state.latents if state.recurrence else state.seen()


def _scale(state: State) -> torch.Tensor:
    if state.recurrence is None:
        return torch.ones(1, 1, 1, 1, device=state.latents.device)
    return state.recurrence.scales[state.steps_done]


def _stepped(
    states: Sequence[State],
    drawn: Sequence[torch.Tensor | None],
    noise: torch.Tensor,
    found: torch.Tensor | None,
) -> list[Stepped]:
    guided = _guided(states, noise)
    written = [
        (state, state.recurrence, mine, own)
        for state, mine, own in zip(states, guided, _there(states, drawn), strict=True)
        if state.recurrence
    ]
    latents = iter(_next_latents(written) if written else ())
    return [
        Stepped(mine, next(latents), kept)
        if state.recurrence
        else Stepped(mine.to(noise.dtype), None, kept)
        for state, mine, kept in zip(states, guided, _kept(states, found), strict=True)
    ]


def _kept(states: Sequence[State], found: torch.Tensor | None) -> Sequence[torch.Tensor | None]:
    if found is None:
        return [None] * len(states)
    rows = found.split_with_sizes([state.rows for state in states])
    layout = torch.channels_last  # as the UNet has it
    return [
        each.clone(memory_format=layout) if state.finds else None
        for state, each in zip(states, rows, strict=True)
    ]


def _guided(states: Sequence[State], noise: torch.Tensor) -> list[torch.Tensor]:
    """Classifier-free guidance (Ho and Salimans 2022): (1, channels, h, w) each."""
    rows = noise.split_with_sizes([state.rows for state in states])
    if all(state.rows == 1 for state in states):
        return list(rows)
    unconditional = torch.cat([each[:1] for each in rows])
    conditional = torch.cat([each[-1:] for each in rows])  # the same where there is no guidance
    scales = torch.cat([state.guidance for state in states])  # (B, 1, 1, 1)
    mixed = unconditional + scales * (conditional - unconditional)
    return [
        _rescaled(each, mine[-1:], state.spec.guidance_rescale) if state.rows == 2 else mine
        for state, each, mine in zip(
            states, mixed.split_with_sizes([1] * len(rows)), rows, strict=True
        )
    ]


def _rescaled(guided: torch.Tensor, conditional: torch.Tensor, share: float) -> torch.Tensor:
    """Restores the conditional's spread, by `share` (Lin et al. 2023, section 3.4)."""
    if not share:
        return guided
    axes = list(range(1, guided.ndim))
    spread = conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return share * (guided * spread) + (1 - share) * guided


def _next_latents(
    written: Sequence[tuple[State, Recurrence, torch.Tensor, torch.Tensor | None]],
) -> Sequence[torch.Tensor]:
    """Sums of as many terms as the longest has; shorter ones add their latents times nothing. So a
    ticket's sum is the same, to the last bit, whoever else is there."""
    states = [state for state, _, _, _ in written]
    sums = [recurrence.terms[state.steps_done] for state, recurrence, _, _ in written]
    numbers = torch.stack([r.numbers[state.steps_done] for state, r, _, _ in written])
    parts = []
    for slot in range(max(map(len, sums))):
        factors = [
            _factor(terms[slot], state, guided, noise) if slot < len(terms) else state.latents
            for terms, (state, _, guided, noise) in zip(sums, written, strict=True)
        ]
        parts.append(numbers[:, slot].view(-1, 1, 1, 1) * torch.cat(factors))  # in float32
    mixed = functools.reduce(torch.add, parts)
    return mixed.to(states[0].latents.dtype).split_with_sizes([1] * len(states))


def _factor(
    term: Term, state: State, guided: torch.Tensor, noise: torch.Tensor | None
) -> torch.Tensor:
    if term.back:
        return state.past[term.back - 1][term.of]
    if term.of is Of.NOISE:
        assert noise is not None
        return noise
    return state.latents if term.of is Of.LATENTS else guided


def _drawn(states: Sequence[State]) -> list[torch.Tensor | None]:
    """Noise of this step on the host, each from its ticket's own generator."""
    asked = [(s, s.recurrence.noise[s.steps_done] if s.recurrence else None) for s in states]
    return [
        None
        if dtype is None
        else torch.randn(s.latents.shape, generator=s.step_arguments.get("generator"), dtype=dtype)
        for s, dtype in asked
    ]


def _there(
    states: Sequence[State], drawn: Sequence[torch.Tensor | None]
) -> Iterator[torch.Tensor | None]:
    """On the device, moved at once."""
    asked = [each for each in drawn if each is not None]
    if not asked:
        return iter(drawn)
    device, noise = states[0].latents.device, torch.cat(asked)
    if device.type == "cuda":
        noise = noise.pin_memory()  # else the host waits until it is copied
    moved = noise.to(device, non_blocking=True)
    there = iter(moved.split_with_sizes([1] * len(asked)))
    return iter([None if each is None else next(there) for each in drawn])
