"""What is written down of a sampler is what it does, and who cannot be written down is not."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from server.errors import OutOfMemory
from server.models.loading import load
from server.models.recurrence import MOST_STEPS, Of, Recurrence, Recurrences, record
from server.models.samplers import Samplers
from server.models.state import State
from server.models.turn import Turn, unet_input
from server.spec import SPACED, Sampler, Sigmas
from tests import builders
from tests.models import tiny
from tests.models.conftest import Checkpoint
from tests.models.drawing import apart, draw, prepare, step

BAR = 1e-4
CPU = torch.device("cpu")
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CORRECT_THE_PAST = {Sampler.UNIPC, Sampler.SA_SOLVER}
WRITTEN = [s for s in Sampler if s not in {*CORRECT_THE_PAST, Sampler.DPMPP_SDE}]

a_spec = partial(builders.a_spec, width=64, height=64, num_inference_steps=5)


def a_sampler(sampler: Sampler, sigmas: Sigmas = Sigmas.DEFAULT, steps: int = 7, **own: Any) -> Any:
    config = {"_class_name": "PNDMScheduler", "steps_offset": 1, "clip_sample": False} | NOISE | own
    return Samplers(config).make(sampler, sigmas, steps, 1)


def arguments(sampler: Any, generator: torch.Generator) -> dict[str, Any]:
    known = inspect.signature(sampler.step).parameters
    return {k: v for k, v in (("eta", 0.3), ("generator", generator)) if k in known}


def written(sampler: Any, dtype: torch.dtype = torch.float32) -> Recurrence | None:
    steps = sampler.timesteps.unbind()
    return record(sampler, steps, arguments(sampler, torch.Generator()), dtype, CPU)


def by_the_sampler(sampler: Any, predictions: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What the UNet sees at each step, and the latents at the end."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(predictions[0].shape, generator=generator) * sampler.init_noise_sigma
    told, seen = arguments(sampler, generator), []
    for timestep, prediction in zip(sampler.timesteps, predictions, strict=True):
        seen.append(sampler.scale_model_input(latents, timestep))
        latents = sampler.step(prediction, timestep, latents, return_dict=False, **told)[0]
    return [*seen, latents]


def by_the_numbers(
    recurrence: Recurrence, spread: float, predictions: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(predictions[0].shape, generator=generator) * spread
    past, seen = [], []
    for now, prediction in enumerate(predictions):
        seen.append(latents * recurrence.scales[now][0])
        dtype = recurrence.noise[now]
        noise = torch.randn(latents.shape, generator=generator, dtype=dtype) if dtype else latents
        past.append((latents, prediction, noise))
        numbers = zip(recurrence.terms[now], recurrence.numbers[now], strict=False)
        latents = torch.stack([n * past[now - t.back][t.of] for t, n in numbers]).sum(0)
    return [*seen, latents]


def random_predictions(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(1, 4, 8, 8, generator=generator) for _ in range(steps)]


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("sampler", WRITTEN)
def test_the_numbers_do_what_the_sampler_does(sampler: Sampler, steps: int, predicts: str) -> None:
    made = a_sampler(sampler, steps=steps, prediction_type=predicts)
    recurrence = written(made)
    assert recurrence is not None
    predictions = random_predictions(len(made.timesteps))
    ours = by_the_numbers(recurrence, float(made.init_noise_sigma), predictions)
    for mine, theirs in zip(ours, by_the_sampler(made, predictions), strict=True):
        assert torch.equal(mine, theirs) or apart(mine, theirs) < BAR


@pytest.mark.parametrize("sigmas", Sigmas)
@pytest.mark.parametrize("sampler", sorted(SPACED & set(WRITTEN) - {Sampler.DPM2, Sampler.DPM2_A}))
def test_so_they_do_with_all_sigmas(sampler: Sampler, sigmas: Sigmas) -> None:
    made = a_sampler(sampler, sigmas)
    recurrence = written(made)
    assert recurrence is not None
    predictions = random_predictions(len(made.timesteps))
    ours = by_the_numbers(recurrence, float(made.init_noise_sigma), predictions)[-1]
    assert apart(ours, by_the_sampler(made, predictions)[-1]) < BAR


@pytest.mark.parametrize("sampler", [s for s in WRITTEN if s is not Sampler.IPNDM])
def test_what_is_kept_is_noised_as_the_sampler_noises_it_between_two_steps(
    sampler: Sampler,
) -> None:
    made = a_sampler(sampler)
    recurrence = written(made)
    assert recurrence is not None
    predictions = random_predictions(len(made.timesteps))
    picture, noise = predictions[:2]
    told = arguments(made, torch.Generator().manual_seed(1))
    for now, following in enumerate(made.timesteps[1:]):
        made.scale_model_input(picture, made.timesteps[now])
        made.step(predictions[now], made.timesteps[now], picture, return_dict=False, **told)
        signal, spread = recurrence.keeps[now].unbind()
        ours = (signal * picture + spread * noise)[0]
        assert apart(ours, made.add_noise(picture, noise, following[None])[0]) < BAR


@pytest.mark.parametrize("sampler", sorted(CORRECT_THE_PAST))
def test_who_corrects_all_that_was_before_is_not_written_down(sampler: Sampler) -> None:
    assert written(a_sampler(sampler, steps=20)) is None


@pytest.mark.parametrize(
    ("sampler", "own"),
    [
        (Sampler.DDIM, {"clip_sample": True}),
        (Sampler.DDPM, {"clip_sample": True}),
        (Sampler.DDIM, {"thresholding": True}),
        (Sampler.DPMPP_2M, {"thresholding": True}),
    ],
)
def test_who_clips_is_not_written_down(sampler: Sampler, own: dict[str, bool]) -> None:
    assert written(a_sampler(sampler, **own)) is None


def test_to_write_it_down_changes_neither_sampler_nor_random_numbers() -> None:
    made, before = a_sampler(Sampler.EULER_A), torch.get_rng_state()
    generator = torch.Generator().manual_seed(3)
    fresh, drawn_from = copy.deepcopy(made.__dict__), generator.get_state()
    record(made, made.timesteps.unbind(), {"generator": generator}, torch.float32, CPU)
    assert made.__dict__.keys() == fresh.keys()
    assert made.step_index == fresh["_step_index"]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generator.get_state(), drawn_from)


def test_noise_is_drawn_in_the_precision_that_the_sampler_asks_for() -> None:
    as_the_latents = written(a_sampler(Sampler.EULER_A), torch.bfloat16)
    always_precise = written(a_sampler(Sampler.DPMPP_2M_SDE), torch.bfloat16)
    never = written(a_sampler(Sampler.EULER), torch.bfloat16)
    assert as_the_latents is not None
    assert set(as_the_latents.noise) == {torch.bfloat16}
    assert always_precise is not None
    assert set(always_precise.noise) == {torch.float32}
    assert never is not None
    assert set(never.noise) == {None}
    assert all(term.of is not Of.NOISE for terms in never.terms for term in terms)


def test_what_was_written_down_is_kept_by_all_that_it_depends_on() -> None:
    known = Recurrences(torch.float32, CPU)
    made = a_sampler(Sampler.EULER)

    def of(first: int, *made_of: object) -> Recurrence | None:
        sampler = copy.deepcopy(made)
        sampler.set_begin_index(first)
        return known.of(sampler, made.timesteps[first:], {}, *made_of)

    assert of(0, "a") is of(0, "a")
    assert of(0, "a") is not of(0, "b")
    shorter = of(2, "a")
    assert shorter is not None
    assert len(shorter.terms) == len(made.timesteps) - 2
    assert of(len(made.timesteps), "a") is None


def test_very_long_schedules_are_left_to_the_sampler() -> None:
    made = a_sampler(Sampler.DDPM, steps=MOST_STEPS + 1)
    assert Recurrences(torch.float32, CPU).of(made, made.timesteps, {}) is None


def states(checkpoint: Checkpoint) -> list[State]:
    """One with each sampler, in the middle of its steps, with every kind of guidance."""
    kinds = [
        {"guidance_scale": 1.0},
        {"guidance_scale": 4.0},
        {"guidance_scale": 6.0, "guidance_rescale": 0.7},
    ]
    made = []
    for number, sampler in enumerate(WRITTEN):
        spec = a_spec(sampler=sampler, seed=number, eta=0.3, **kinds[number % 3])
        state = prepare(checkpoint.denoiser, spec)
        for _ in range(number % 4):
            step(checkpoint.denoiser, [state])
        made.append(state)
    return made


def test_a_sum_is_the_same_to_the_last_bit_whoever_else_is_there(v1: Checkpoint) -> None:
    company, alone = states(v1), states(v1)
    rows = [state.rows for state in company]
    noise = torch.randn(sum(rows), 4, 8, 8, generator=torch.Generator().manual_seed(3))
    noise[rows[0]] = float("nan")  # the second ticket's
    together = Turn(company, noise)
    with torch.inference_mode():
        for number, (state, mine) in enumerate(zip(alone, noise.split(rows), strict=True)):
            ours, its = together.stepped(number), Turn([state], mine).stepped(0)
            assert ours.latents is not None
            assert its.latents is not None
            assert torch.equal(ours.guided, its.guided) or number == 1
            assert torch.equal(ours.latents, its.latents) or number == 1
            assert ours.latents.isfinite().all() == (number != 1)
        inputs = torch.cat([unet_input([state]) for state in company])
        assert torch.equal(unet_input(company), inputs)


def test_a_call_that_is_made_again_draws_no_noise_twice(v1: Checkpoint) -> None:
    state = prepare(v1.denoiser, a_spec(sampler=Sampler.EULER_A))
    before = state.step_arguments["generator"].get_state()
    v1.denoiser.predict([state])
    assert torch.equal(state.step_arguments["generator"].get_state(), before)
    step(v1.denoiser, [state])
    assert not torch.equal(state.step_arguments["generator"].get_state(), before)


def test_what_fails_after_the_noise_was_drawn_draws_none_again(
    v1: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [a_spec(sampler=Sampler.EULER_A, seed=seed) for seed in (1, 2)]
    first, second = (prepare(v1.denoiser, spec) for spec in specs)
    turn = v1.denoiser.predict([first, second])
    with monkeypatch.context() as full:
        full.setattr("server.models.turn._next_latents", raising(OutOfMemory("full")))
        with pytest.raises(OutOfMemory):
            v1.denoiser.advance(first, turn[0])
    v1.denoiser.advance(second, turn[1])
    while second.steps_done < second.steps_total:
        step(v1.denoiser, [second])
    assert apart(second.latents, draw(v1.denoiser, specs[1]).latents) < BAR


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("sampler", [*WRITTEN, Sampler.UNIPC])
def test_in_half_precision_it_is_as_near_to_the_exact_picture_as_the_sampler_itself(
    v1: Checkpoint, half: Any, monkeypatch: pytest.MonkeyPatch, sampler: Sampler
) -> None:
    spec = a_spec(sampler=sampler, num_inference_steps=8)
    exact = draw(v1.denoiser, spec).latents
    ours = draw(half, spec).latents
    monkeypatch.setattr(half, "_recurrences", Recurrences(torch.bfloat16, CPU))
    monkeypatch.setattr(half._recurrences, "of", lambda *_: None)
    theirs = draw(half, spec).latents
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert apart(ours.float(), exact) < 1.5 * apart(theirs.float(), exact) + 0.01


@pytest.fixture(scope="module")
def half(v1: Checkpoint) -> Any:
    return load(tiny.card(v1.folder), "cpu", "bfloat16")


def test_what_cannot_be_written_down_is_stepped_by_its_own_sampler(v1: Checkpoint) -> None:
    assert prepare(v1.denoiser, a_spec()).recurrence is not None
    for sampler in (Sampler.DPMPP_SDE, *sorted(CORRECT_THE_PAST)):
        spec = a_spec(sampler=sampler, num_inference_steps=20)
        assert prepare(v1.denoiser, spec).recurrence is None
