"""The real engine over the real family: what leaves it is what diffusers draws, in any company."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from server.models.diffusion import LatentDiffusion
from server.spec import Sampler, TextToImage
from server.workers.engine import Engine, Ticket
from tests import builders
from tests.models import oracle
from tests.models.conftest import Checkpoint
from tests.models.drawing import prepare

a_spec = partial(builders.a_spec, width=64, height=64, num_inference_steps=5)
ALL = list(Sampler)
ARRIVALS = (0, 0, 1, 1, 2, 3, 3, 4)


def company(of: Sampler) -> list[TextToImage]:
    """Eight generations that differ from each other in everything a ticket may differ in."""
    start = ALL.index(of) + 1
    return [
        a_spec(
            seed=50 + number,
            prompt=f"{number} blue squares",
            negative_prompt="red" if number % 3 else "",
            sampler=ALL[(start + number) % len(ALL)],
            num_inference_steps=3 + number,
            guidance_scale=(7.5, 1.0, 3.0)[number % 3],
        )
        for number in range(8)
    ]


def draw(denoiser: LatentDiffusion, spec: TextToImage, others: list[TextToImage]) -> Ticket:
    """`spec` through the engine from its first turn on, the others as they arrive."""
    engine = Engine(denoiser, max_step_pixels=10**9)
    mine = Ticket("mine", 0, prepare(denoiser, spec), 0, float("inf"))
    engine.admit(mine)
    arriving = list(zip(ARRIVALS, others, strict=False))
    turn = 0
    while engine.busy or arriving:
        while arriving and arriving[0][0] <= turn:
            _, other = arriving.pop(0)
            engine.admit(Ticket(str(other.seed), 0, prepare(denoiser, other), 0, float("inf")))
        for outcome in engine.step().outcomes:
            assert outcome.error is None
        turn += 1
    return mine


@pytest.mark.parametrize("sampler", ALL)
def test_a_picture_equals_diffusers_alone_and_among_eight_others(
    v1: Checkpoint, sampler: Sampler
) -> None:
    spec = a_spec(sampler=sampler)
    theirs = oracle.latents(v1.folder, spec)
    for others in ([], company(sampler)):
        mine = draw(v1.denoiser, spec, others)
        assert mine.batch_rows == 2 * mine.steps_done if not others else mine.batch_rows > 8
        ours = mine.state.latents
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4


def test_the_pictures_of_a_batch_are_those_of_the_tickets_alone(v1: Checkpoint) -> None:
    specs = company(Sampler.EULER)
    engine = Engine(v1.denoiser, max_step_pixels=10**9)
    for spec in specs:
        engine.admit(Ticket(str(spec.seed), 0, prepare(v1.denoiser, spec), 0, float("inf")))
    together = {}
    while engine.busy:
        for outcome in engine.step().outcomes:
            assert outcome.picture is not None
            together[outcome.ticket.id] = outcome.picture.array().astype(int)
    for spec in specs:
        alone = v1.denoiser.decode([draw(v1.denoiser, spec, []).state])[0].array().astype(int)
        assert np.abs(together[str(spec.seed)] - alone).max() <= 1


def test_what_did_not_fit_is_out_of_memory_before_it_is_tried_again(v1: Checkpoint) -> None:
    tried: list[weakref.ref[torch.Tensor]] = []

    def tight(unet: Any, _: tuple[Any, ...], told: dict[str, Any]) -> None:
        assert all(each() is None for each in tried)
        tried.append(weakref.ref(told["sample"]))
        if len(told["sample"]) > 2:
            torch.empty(2**60, dtype=torch.uint8)

    engine = Engine(v1.denoiser, max_step_pixels=10**9)
    for seed in range(4):
        engine.admit(Ticket("a", 0, prepare(v1.denoiser, a_spec(seed=seed)), 0, float("inf")))
    hook = v1.denoiser._unet.register_forward_pre_hook(tight, with_kwargs=True)
    try:
        assert engine.step().outcomes == []
    finally:
        hook.remove()
    assert len(tried) == 2 + 2 + 4


def test_a_unet_that_fails_for_one_row_fails_one_ticket(
    v1: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = LatentDiffusion.predict

    def refuse_seed_9(self, states):  # type: ignore[no-untyped-def]
        if any(state.spec.seed == 9 for state in states):
            raise RuntimeError("a kernel failed")
        return predict(self, states)

    monkeypatch.setattr(LatentDiffusion, "predict", refuse_seed_9)
    engine = Engine(v1.denoiser, max_step_pixels=10**9)
    specs = [a_spec(seed=seed, sampler=ALL[seed]) for seed in (7, 8, 9, 10)]
    tickets = [Ticket(str(s.seed), 0, prepare(v1.denoiser, s), 0, float("inf")) for s in specs]
    for ticket in tickets:
        engine.admit(ticket)
    failed = [o.ticket.id for o in engine.step().outcomes if o.error]
    while engine.busy:
        assert all(o.error is None for o in engine.step().outcomes)
    assert failed == ["9"]
    for ticket, spec in zip(tickets, specs, strict=True):
        if ticket.id != "9":
            torch.testing.assert_close(
                ticket.state.latents, oracle.latents(v1.folder, spec), rtol=1e-4, atol=1e-4
            )
