"""Guidance that ends early and features that are used again: as others have published them, alone
and in company, and nothing at all where nobody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.callbacks import SDCFGCutoffCallback, SDXLCFGCutoffCallback

from server.errors import InvalidSpec
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.models.reuse import Reuse
from server.models.state import State
from server.pixels import Inputs
from server.spec import AnySpec, Lora, Sampler
from server.stages import Handover, Stage
from server.workers.engine import Engine, Ticket
from tests import builders
from tests.models import loras, oracle, tiny
from tests.models.conftest import Checkpoint
from tests.models.drawing import NOTHING, apart, draw, prepare, step
from tests.models.rows import ROWS

Replica = Callable[[str], Checkpoint]
TOLERANCE = 1e-5
SAMPLERS = (
    Sampler.DDIM,
    Sampler.EULER_A,
    Sampler.HEUN,
    Sampler.DPM2,
    Sampler.PNDM,
    Sampler.DPMPP_2M,
    Sampler.DPMPP_SDE,
    Sampler.UNIPC,
)
a_spec = partial(builders.a_spec, width=64, height=64, num_inference_steps=6)
KINDS = {row.replica: row for row in reversed(ROWS) if not row.share}
"""One row for each kind of UNet."""


def of_row(name: str, **fields: Any) -> tuple[AnySpec, Inputs]:
    row = KINDS.get(name, KINDS["sd-v1"])
    return row.make(**({"num_inference_steps": 6} | fields)), row.inputs


def by_the_callback(folder: Any, spec: AnySpec, inputs: Inputs = NOTHING) -> torch.Tensor:
    """What diffusers draws with its own cut-off of guidance."""
    kind = SDXLCFGCutoffCallback if spec.sdxl is not None else SDCFGCutoffCallback
    cutoff = kind(cutoff_step_ratio=spec.guidance_end)
    return oracle.latents(folder, spec, inputs, callback_on_step_end=cutoff)


@contextmanager
def reusing(unet: Any, every: int) -> Iterator[None]:
    """All of the UNet but its last layer answers with what it said at the last call of so many: the
    shallowest branch of DeepCache, on its uniform schedule."""
    last = unet.up_blocks[-1]
    layers = getattr(last, "attentions", last.resnets)
    calls, said = [0], [torch.empty(0)]

    def repeat(module: Any, inputs: Any, output: Any) -> Any:
        if calls[0] % every == 0:
            said[0] = output[0] if isinstance(output, tuple) else output
        calls[0] += 1
        # Guidance may have ended since.
        rows = said[0][-len(inputs[0]) :]
        return (rows,) if isinstance(output, tuple) else rows

    hook = layers[-2].register_forward_hook(repeat)
    try:
        yield
    finally:
        hook.remove()


def by_deepcache(folder: Any, spec: AnySpec, inputs: Inputs = NOTHING) -> torch.Tensor:
    """What diffusers draws while its UNet repeats itself; with guidance cut off, if it ends."""
    pipe, _ = oracle.pipeline(folder, spec.task)
    with reusing(pipe.unet, spec.cache_interval):
        if spec.guidance_end < 1:
            return by_the_callback(folder, spec, inputs)
        return oracle.latents(folder, spec, inputs)


def together(denoiser: LatentDiffusion, drawn: Sequence[AnySpec], joins: int = 2) -> list[State]:
    """Through one engine; so many come at each turn."""
    engine = Engine(denoiser, max_step_pixels=10**9)
    states = [prepare(denoiser, spec) for spec in drawn]
    waiting = list(states)
    while waiting or engine.busy:
        for state in waiting[:joins]:
            engine.admit(Ticket("", 0, state, 0, float("inf")))
        waiting = waiting[joins:]
        for outcome in engine.step().outcomes:
            assert outcome.error is None, outcome.error
    return states


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_guidance_ends_where_diffusers_own_callback_cuts_it_off(
    v1: Checkpoint, sampler: Sampler, share: float
) -> None:
    spec = a_spec(sampler=sampler, guidance_end=share)
    theirs = by_the_callback(v1.folder, spec)
    assert apart(draw(v1.denoiser, spec).latents, theirs) < TOLERANCE
    assert apart(theirs, oracle.latents(v1.folder, a_spec(sampler=sampler))) > 10 * TOLERANCE


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": Sampler.HEUN, "guidance_end": 0.3},
        {"sampler": Sampler.DPMPP_2M_SDE, "guidance_end": 0.6, "guidance_rescale": 0.7},
        {"cache_interval": 3},
        {"cache_interval": 2, "guidance_end": 0.5, "sampler": Sampler.DPM2},
    ],
    ids=str,
)
def test_sdxl_drops_what_it_is_told_of_the_unconditional_too(
    replica: Replica, changes: dict[str, Any]
) -> None:
    spec, _ = of_row("sdxl-base", **changes)
    base = replica("sdxl-base")
    theirs = by_deepcache(base.folder, spec)
    assert apart(draw(base.denoiser, spec).latents, theirs) < TOLERANCE


def test_a_ticket_has_one_row_when_its_guidance_has_ended(v1: Checkpoint) -> None:
    state = prepare(v1.denoiser, a_spec(guidance_end=0.5))
    rows = []
    while state.steps_done < state.steps_total:
        rows.append(state.rows)
        step(v1.denoiser, [state])
    assert rows == [2, 2, 2, 2, 1, 1]
    assert prepare(v1.denoiser, a_spec(guidance_end=0.5)).bucket == state.bucket


def test_guidance_that_is_off_cannot_end(v1: Checkpoint) -> None:
    drawn = [
        draw(v1.denoiser, a_spec(guidance_scale=1.0, guidance_end=share)).latents
        for share in (0.4, 1.0)
    ]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_every_kind_of_unet_uses_again_what_deepcache_does(
    replica: Replica, name: str, guidance_scale: float
) -> None:
    spec, inputs = of_row(name, cache_interval=3, guidance_scale=guidance_scale)
    checkpoint = replica(name)
    theirs = by_deepcache(checkpoint.folder, spec, inputs)
    ours = draw(checkpoint.denoiser, spec, inputs=inputs).latents
    assert apart(ours, theirs) < TOLERANCE
    exact = draw(checkpoint.denoiser, spec.model_copy(update={"cache_interval": 1}), inputs=inputs)
    assert apart(ours, exact.latents) > 10 * TOLERANCE


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("every", [2, 5])
def test_features_are_used_again_with_every_kind_of_sampler(
    v1: Checkpoint, sampler: Sampler, every: int
) -> None:
    spec = a_spec(sampler=sampler, cache_interval=every)
    theirs = by_deepcache(v1.folder, spec)
    assert apart(draw(v1.denoiser, spec).latents, theirs) < TOLERANCE


@pytest.mark.parametrize("name", [*KINDS, "sd-lcm"])
def test_a_whole_call_is_the_unets_own_and_finds_what_makes_a_shallow_one_the_same(
    replica: Replica, name: str
) -> None:
    spec, inputs = of_row(name)
    denoiser = replica(name).denoiser
    unet, states = denoiser._unet, [prepare(denoiser, spec, inputs=inputs)]
    seen: dict[str, Any] = {}
    hook = unet.register_forward_pre_hook(lambda *args: seen.update(args[2]), with_kwargs=True)
    denoiser.predict(states)
    hook.remove()
    del seen["return_dict"]
    with torch.inference_mode():
        exact = unet(**seen)[0]
        whole, found = Reuse(unet).whole(**seen)
        shallow = Reuse(unet).shallow(found, **seen)
    assert torch.equal(whole, exact)
    assert torch.equal(shallow, exact)
    assert unet.up_blocks[-1].resnets[-1]._forward_pre_hooks == {}


def test_company_does_not_change_the_picture(v1: Checkpoint) -> None:
    specs = [
        a_spec(
            sampler=sampler,
            prompt=f"{number} red circles",
            seed=100 + number,
            num_inference_steps=4 + number % 4,
            guidance_scale=(7.5, 3.0, 1.0)[number % 3],
            guidance_rescale=0.7 * (number % 2),
            guidance_end=(1.0, 0.3, 0.6)[number // 2 % 3],
            cache_interval=(1, 3, 2, 1)[number % 4],
        )
        for number, sampler in enumerate(2 * SAMPLERS)
    ]
    for spec, state in zip(specs, together(v1.denoiser, specs), strict=True):
        theirs = by_deepcache(v1.folder, spec)
        assert apart(state.latents, theirs) < TOLERANCE, spec
        assert apart(state.latents, draw(v1.denoiser, spec).latents) < TOLERANCE, spec


def test_company_does_not_change_what_sdxl_draws(replica: Replica) -> None:
    base = replica("sdxl-base")
    asked: list[tuple[Sampler, dict[str, Any]]] = [
        (Sampler.EULER, {"guidance_end": 0.4}),
        (Sampler.HEUN, {"cache_interval": 2}),
        (Sampler.DDIM, {}),
        (Sampler.DPMPP_2M, {"cache_interval": 2, "guidance_end": 0.4}),
        (Sampler.DDIM, {"guidance_scale": 1.0, "cache_interval": 3}),
    ]
    specs = [
        of_row("sdxl-base", sampler=sampler, seed=number, **changes)[0]
        for number, (sampler, changes) in enumerate(asked)
    ]
    for spec, state in zip(specs, together(base.denoiser, specs), strict=True):
        assert apart(state.latents, by_deepcache(base.folder, spec)) < TOLERANCE, spec


def test_long_and_short_prompts_share_a_shallow_call(v1: Checkpoint) -> None:
    specs = [
        a_spec(prompt=prompt, long_prompts="chunk", cache_interval=3)
        for prompt in ("short", "so many words " * 20)
    ]
    alone = [draw(v1.denoiser, spec).latents for spec in specs]
    states = [prepare(v1.denoiser, spec) for spec in specs]
    while states[0].steps_done < states[0].steps_total:
        assert states[0].bucket == states[1].bucket
        step(v1.denoiser, states)
    for state, latents in zip(states, alone, strict=True):
        assert apart(state.latents, latents) < TOLERANCE


def test_whole_calls_are_shared_with_everybody_and_shallow_ones_with_their_like(
    v1: Checkpoint,
) -> None:
    exact = prepare(v1.denoiser, a_spec())
    one, other = (prepare(v1.denoiser, a_spec(cache_interval=n, seed=n)) for n in (2, 3))
    assert exact.bucket == one.bucket == other.bucket
    assert not exact.shallow
    step(v1.denoiser, [exact, one, other])
    assert exact.bucket != one.bucket == other.bucket
    assert one.shallow
    step(v1.denoiser, [one, other])
    assert exact.bucket == one.bucket != other.bucket


def test_what_was_found_is_each_tickets_own_and_let_go_in_the_end(v1: Checkpoint) -> None:
    states = [prepare(v1.denoiser, a_spec(cache_interval=5, seed=n)) for n in range(3)]
    states.append(prepare(v1.denoiser, a_spec()))
    step(v1.denoiser, states)
    for state in states[:3]:
        assert state.found is not None
        assert state.found.untyped_storage().nbytes() == state.found.nbytes
    assert states[3].found is None
    for state in states:
        while state.steps_done < state.steps_total:
            step(v1.denoiser, [state])
        assert state.found is None


def test_predicting_again_or_in_halves_changes_nothing(v1: Checkpoint) -> None:
    specs = [a_spec(seed=seed, cache_interval=2, guidance_end=0.5) for seed in range(2)]
    calm = [draw(v1.denoiser, spec).latents for spec in specs]
    states = [prepare(v1.denoiser, spec) for spec in specs]
    while states[0].steps_done < states[0].steps_total:
        v1.denoiser.predict(states)
        step(v1.denoiser, states[:1])
        step(v1.denoiser, states[1:])
    for state, latents in zip(states, calm, strict=True):
        assert apart(state.latents, latents) < TOLERANCE


def test_previews_are_of_the_picture_that_is_drawn(v1: Checkpoint) -> None:
    changes = {"cache_interval": 2, "guidance_end": 0.3, "num_inference_steps": 6}
    watched = draw(v1.denoiser, a_spec(previews=3, **changes))
    assert watched.previews_due == 3
    assert torch.equal(watched.latents, draw(v1.denoiser, a_spec(**changes)).latents)


def test_an_expert_counts_its_own_steps(replica: Replica) -> None:
    refiner = replica("sdxl-refiner")
    spec, _ = of_row("sdxl-refiner", guidance_end=0.5, strength=1.0)
    latents = Inputs(latents=torch.zeros(4, 8, 8).numpy())
    stage = Stage(spec=spec, begin=0.3, takes=Handover.LATENTS)
    state = prepare(refiner.denoiser, stage, inputs=latents)
    assert (state.steps_total, state.guided_calls) == (5, 3)


def test_a_unet_with_nothing_to_use_again_is_refused_in_words(v1: Checkpoint) -> None:
    flat = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        mid_block_type=None,
        up_block_types=("AttnUpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
    )
    with pytest.raises(InvalidSpec, match="not made") as refused:
        Reuse(flat).check()
    assert refused.value.field == "cache_interval"


def test_a_lora_is_worn_by_shallow_calls_too(v1: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "Lora" / "style.safetensors"
    loras.write(file, v1.folder, unet=loras.UNET + loras.CONVOLUTIONS)
    denoiser = load(tiny.card(v1.folder), "cpu", models_dir=tmp_path)
    spec = a_spec(cache_interval=3)
    worn = spec.model_copy(update={"loras": (Lora(name="style", scale=0.7),)})
    with loras.wearing(v1.folder, {file: 0.7}):
        theirs = by_deepcache(v1.folder, spec)
    assert apart(draw(denoiser, worn).latents, theirs) < TOLERANCE
    assert apart(theirs, by_deepcache(v1.folder, spec)) > 100 * TOLERANCE
