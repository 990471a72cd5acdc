"""Samplers are made fresh from any checkpoint's config, or refused in words."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from server.errors import InvalidSpec
from server.models.samplers import CLASSES, Samplers
from server.spec import SPACED, Sampler, Sigmas

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FOREIGN = [
    DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_type="heun", **NOISE),
    DEISMultistepScheduler(solver_order=3, **NOISE),
    UniPCMultistepScheduler(solver_type="bh1", solver_order=3, **NOISE),
    EulerDiscreteScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    ),
    LCMScheduler(),
]


def samplers(**config: Any) -> Samplers:
    return Samplers({"_class_name": "PNDMScheduler", "steps_offset": 1} | NOISE | config)


def run(sampler: Any, seed: int = 1) -> torch.Tensor:
    """All steps with a stand-in for the UNet."""
    generator = torch.Generator().manual_seed(seed)
    known = inspect.signature(sampler.step).parameters
    arguments = {"generator": generator} if "generator" in known else {}
    latents = torch.randn(1, 4, 8, 8, generator=generator) * sampler.init_noise_sigma
    for timestep in sampler.timesteps:
        noise = torch.tanh(sampler.scale_model_input(latents, timestep))
        latents = sampler.step(noise, timestep, latents, return_dict=False, **arguments)[0]
    return latents


def test_every_sampler_has_a_class() -> None:
    assert set(CLASSES) == set(Sampler)


@pytest.mark.parametrize("sampler", Sampler)
def test_spaced_is_what_the_classes_can(sampler: Sampler) -> None:
    known = inspect.signature(CLASSES[sampler][0].__init__).parameters
    able = {f"use_{sigmas}_sigmas" in known for sigmas in ("karras", "exponential", "beta")}
    assert able == {sampler in SPACED}


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("sigmas", Sigmas)
@pytest.mark.parametrize("sampler", sorted(SPACED - {Sampler.DPM2, Sampler.DPM2_A}))
def test_every_spacing_runs_to_its_end(sampler: Sampler, sigmas: Sigmas, steps: int) -> None:
    assert run(samplers().make(sampler, sigmas, steps, 1)).isfinite().all()


@pytest.mark.parametrize("sampler", [s for s in Sampler if s not in SPACED])
def test_a_spacing_the_class_does_not_know_is_refused(sampler: Sampler) -> None:
    with pytest.raises(InvalidSpec, match="cannot space its steps by karras") as caught:
        samplers().make(sampler, Sigmas.KARRAS, 5, 1)
    assert caught.value.field == "sigmas"


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("sampler", Sampler)
def test_a_config_of_another_class_will_do(sampler: Sampler, foreign: Any) -> None:
    made = Samplers(foreign.config).make(sampler, Sigmas.DEFAULT, 5, 1)
    kind, own = CLASSES[sampler]
    assert type(made) is kind
    assert {key: made.config[key] for key in own} == own
    assert run(made).isfinite().all()


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", [s for s in Sampler if s is not Sampler.IPNDM])
def test_the_checkpoints_noise_and_prediction_are_kept(sampler: Sampler, predicts: str) -> None:
    made = samplers(prediction_type=predicts).make(sampler, Sigmas.DEFAULT, 5, 1)
    assert made.config.prediction_type == predicts
    assert {key: made.config[key] for key in NOISE} == NOISE


def test_default_sigmas_are_the_checkpoints_own() -> None:
    karras = samplers(use_karras_sigmas=True)
    asked = samplers().make(Sampler.EULER, Sigmas.KARRAS, 5, 1).sigmas
    assert karras.make(Sampler.EULER, Sigmas.DEFAULT, 5, 1).sigmas.equal(asked)
    beta = samplers().make(Sampler.EULER, Sigmas.BETA, 5, 1).sigmas
    assert karras.make(Sampler.EULER, Sigmas.BETA, 5, 1).sigmas.equal(beta)


@pytest.mark.parametrize("sampler", Sampler)
def test_no_two_tickets_share_anything_that_changes(sampler: Sampler) -> None:
    maker = samplers()
    first, second = (maker.make(sampler, Sigmas.DEFAULT, 5, 1) for _ in range(2))
    alone = run(first)
    assert run(second).equal(alone)
    assert run(maker.make(sampler, Sigmas.DEFAULT, 5, 1)).equal(alone)


def test_the_seed_decides_noise_that_a_sampler_draws_itself() -> None:
    maker = samplers()
    one, same, other = (
        run(maker.make(Sampler.DPMPP_SDE, Sigmas.DEFAULT, 5, seed), seed=9) for seed in (1, 1, 2)
    )
    assert one.equal(same)
    assert not one.equal(other)


@pytest.mark.parametrize(
    ("sampler", "steps", "most"),
    [(Sampler.LCM, 51, 50), (Sampler.TCD, 51, 50), (Sampler.DDIM, 1001, 1000)],
)
def test_too_many_steps_are_refused_with_the_largest_number(
    sampler: Sampler, steps: int, most: int
) -> None:
    samplers().make(sampler, Sigmas.DEFAULT, most, 1)
    with pytest.raises(InvalidSpec, match=f"at most {most} steps") as caught:
        samplers().make(sampler, Sigmas.DEFAULT, steps, 1)
    assert caught.value.field == "num_inference_steps"


def test_timesteps_and_sigmas_stay_on_the_cpu() -> None:
    made = samplers().make(Sampler.DPMPP_2M, Sigmas.KARRAS, 5, 1)
    assert made.timesteps.device == made.sigmas.device == torch.device("cpu")
