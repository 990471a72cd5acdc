"""The diffusion noise schedulers by their usual names, made afresh for each ticket.

A sampler carries the state of one trajectory, so no two tickets may share one. All of them keep
their timesteps and sigmas on the CPU, where reading one does not wait for the device. Knows
nothing of models, prompts or batches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    SASolverScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from server.errors import InvalidSpec
from server.spec import DISTILLED, SPACED, Sampler, Sigmas

# What a class is told besides the checkpoint's own config. A foreign config may carry another
# class's algorithm or solver under the same key, so those that have one always name theirs.
CLASSES: dict[Sampler, tuple[Any, dict[str, Any]]] = {
    Sampler.DDIM: (DDIMScheduler, {}),
    Sampler.DDPM: (DDPMScheduler, {}),
    Sampler.PNDM: (PNDMScheduler, {"skip_prk_steps": True}),
    Sampler.LMS: (LMSDiscreteScheduler, {}),
    Sampler.EULER: (EulerDiscreteScheduler, {}),
    Sampler.EULER_A: (EulerAncestralDiscreteScheduler, {}),
    Sampler.HEUN: (HeunDiscreteScheduler, {}),
    Sampler.DPM2: (KDPM2DiscreteScheduler, {}),
    Sampler.DPM2_A: (KDPM2AncestralDiscreteScheduler, {}),
    Sampler.DPMPP_2M: (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
    ),
    Sampler.DPMPP_2M_SDE: (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
    ),
    Sampler.DPMPP_SDE: (DPMSolverSDEScheduler, {}),
    Sampler.DPMPP_2S: (
        DPMSolverSinglestepScheduler,
        {
            "algorithm_type": "dpmsolver++",
            "solver_order": 2,
            "solver_type": "midpoint",
            "lower_order_final": True,
        },
    ),
    Sampler.DPMPP_3M_SDE: (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "midpoint"},
    ),
    Sampler.UNIPC: (UniPCMultistepScheduler, {"solver_order": 2, "solver_type": "bh2"}),
    Sampler.DEIS: (
        DEISMultistepScheduler,
        {"algorithm_type": "deis", "solver_order": 2, "solver_type": "logrho"},
    ),
    Sampler.LCM: (LCMScheduler, {}),
    Sampler.TCD: (TCDScheduler, {}),
    Sampler.IPNDM: (IPNDMScheduler, {}),
    Sampler.SA_SOLVER: (SASolverScheduler, {"algorithm_type": "data_prediction"}),
}


class Samplers:
    """Makes the samplers of one checkpoint. May be called from several threads.

    Args:
        config: the checkpoint's own scheduler config, of whatever class. What it says about
            betas, prediction type and timesteps holds for every sampler; `Sigmas.DEFAULT` keeps
            its sigmas too.
    """

    def __init__(self, config: Mapping[str, Any], cache_size: int = 128) -> None:
        self._config = dict(config)
        # Some classes take 0.2 s to make; a copy of one at its first step takes 0.2 ms.
        self._unused = lru_cache(cache_size)(self._make)

    def make(self, sampler: Sampler, sigmas: Sigmas, num_inference_steps: int, seed: int) -> Any:
        """A fresh diffusers scheduler at its first step, with its timesteps set.

        Args:
            seed: feeds a sampler that draws its noise itself, not from a given generator.

        Raises:
            InvalidSpec: this sampler has no such sigmas, or cannot take so many steps.
        """
        fresh = copy.deepcopy(self._unused(sampler, sigmas, num_inference_steps))
        if sampler is Sampler.DPMPP_SDE:
            fresh.noise_sampler_seed = seed
        return fresh

    def _make(self, sampler: Sampler, sigmas: Sigmas, num_inference_steps: int) -> Any:
        kind, own = CLASSES[sampler]
        made = kind.from_config(self._config, **own, **_spacing(sampler, sigmas))
        _check_steps(sampler, made, num_inference_steps)
        made.set_timesteps(num_inference_steps, device="cpu")
        if hasattr(made, "set_begin_index"):
            # Otherwise the first step is looked up by timestep, which finds the second one where
            # rounding made two timesteps equal (beta sigmas, 50 steps), and the last step fails.
            made.set_begin_index(0)
        if sampler is Sampler.LMS:
            # Integrals over the sigmas, milliseconds each, and the same for every copy.
            made.get_lms_coefficient = cache(made.get_lms_coefficient)
        return made


def _spacing(sampler: Sampler, sigmas: Sigmas) -> dict[str, bool]:
    if sigmas is Sigmas.DEFAULT:
        return {}
    if sampler not in SPACED:
        able = ", ".join(sorted(SPACED))
        raise InvalidSpec(
            f"{sampler} cannot space its steps by {sigmas} sigmas; these samplers can: {able}",
            field="sigmas",
        )
    spacings = (Sigmas.KARRAS, Sigmas.EXPONENTIAL, Sigmas.BETA)
    return {f"use_{spacing}_sigmas": spacing is sigmas for spacing in spacings}


def _check_steps(sampler: Sampler, made: Any, num_inference_steps: int) -> None:
    most: int = made.config.num_train_timesteps
    if sampler in DISTILLED:
        most = min(most, made.config.original_inference_steps)
    if num_inference_steps > most:
        raise InvalidSpec(
            f"{sampler} can take at most {most} steps on this checkpoint, not"
            f" {num_inference_steps}",
            field="num_inference_steps",
        )
