"""Trying out a checkpoint without a queue: load it, draw one picture, measure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.catalog import Card
from server.config import Settings
from server.spec import Quantization
from server.workers.engine import Engine, Ticket
from server.workers.native import native_inputs, native_stage
from server.workers.unpack import unpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Verified:
    """A checkpoint that loads and draws."""

    parameters: int
    dtype: str
    device: str
    load_seconds: float
    peak_memory_bytes: int
    step_seconds: float
    decode_seconds: float
    task: str
    picture: NDArray[np.uint8]
    """Its shape is (height, width, 3)."""
    quantization: Quantization = Quantization.NONE

    def facts(self) -> Iterator[tuple[str, str]]:
        """What there is to say, in words and units."""
        height, width, _ = self.picture.shape
        yield "size", f"{self.parameters / 1e6:,.1f} M parameters"
        yield "loaded in", f"{self.load_seconds:.1f} s"
        kept = "" if self.quantization is Quantization.NONE else f", weights in {self.quantization}"
        yield "computes on", f"{self.device} in {self.dtype}{kept}"
        yield "drew", f"{self.task}, {width} x {height} pixels"
        yield "a step takes", f"{1000 * self.step_seconds:,.1f} ms"
        yield "decoding takes", f"{1000 * self.decode_seconds:,.1f} ms"
        yield "peak memory", f"{self.peak_memory_bytes / 1e6:,.0f} MB"


def verify(settings: Settings, card: Card, steps: int) -> Verified:
    """Loads the card's checkpoint as a worker would, and draws its first task at native size.

    Raises:
        CheckpointError: it cannot be loaded; says which part.
        DarkroomError: it loads but does not draw; says why.
    """
    began = time.perf_counter()
    denoiser = unpack(settings, card)
    loaded = time.perf_counter() - began
    ticket, picture = _draw(denoiser, card, steps)
    return Verified(
        parameters=denoiser.parameters,
        dtype=str(denoiser.dtype).removeprefix("torch."),
        device=str(denoiser.device),
        load_seconds=loaded,
        peak_memory_bytes=denoiser.peak_memory_bytes(),
        step_seconds=ticket.denoise_seconds / max(1, ticket.steps_done),
        decode_seconds=ticket.decode_seconds,
        task=str(ticket.state.spec.task),
        picture=picture,
        quantization=card.quantization,
    )


def _draw(denoiser: Any, card: Card, steps: int) -> tuple[Any, NDArray[np.uint8]]:
    stage = native_stage(card, num_inference_steps=steps, deadline_seconds=86_400.0)
    state = denoiser.prepare(stage, 0, native_inputs(stage))
    denoiser.predict([state])  # the first call does what is done once
    denoiser.wait()
    engine = Engine(denoiser, max_step_pixels=state.rows * state.pixels)
    ticket = Ticket(id=card.name, index=0, state=state, priority=0, deadline=float("inf"))
    engine.admit(ticket)
    while engine.busy:
        for outcome in engine.step().outcomes:
            if outcome.error is not None:
                raise outcome.error
            assert outcome.picture is not None
            pixels: Any = outcome.picture.array()
            return ticket, pixels
    raise AssertionError("the engine lost its ticket")
