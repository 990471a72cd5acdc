"""SDXL draws what diffusers draws: base, inpainting and refiner, alone and in company."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from server.errors import InvalidSpec
from server.models.loading import load
from server.pixels import Inputs
from server.spec import (
    AnySpec,
    LongPrompts,
    Refiner,
    Sampler,
    SdxlConditioning,
    TextToImage,
)
from server.stages import Handover, Stage, stages
from tests import builders
from tests.models import oracle, zoo
from tests.models.conftest import Checkpoint
from tests.models.drawing import (
    Guest,
    a_mask,
    a_picture,
    apart,
    decoded,
    draw,
    draw_together,
    prepare,
)

Replica = Callable[[str], Checkpoint]
TOLERANCE = 1e-4
STOCHASTIC_OR_SECOND_ORDER = (
    Sampler.EULER,
    Sampler.EULER_A,
    Sampler.HEUN,
    Sampler.DPM2,
    Sampler.PNDM,
    Sampler.DPMPP_2M_SDE,
    Sampler.DPMPP_SDE,
)
PAINTED = Inputs(image=a_picture(96, 64), mask=a_mask(96, 64))


def told(**changes: Any) -> SdxlConditioning:
    """Neither square nor whole, and not the same for both rows."""
    fields: dict[str, Any] = {
        "prompt_2": "a blue star",
        "negative_prompt_2": "",
        "original_size": (120, 70),
        "crops_coords_top_left": (5, 17),
        "target_size": (96, 64),
        "negative_original_size": (40, 56),
        "negative_crops_coords_top_left": (5, 17),
        "negative_target_size": (32, 72),
        "aesthetic_score": 6.5,
        "negative_aesthetic_score": 2.0,
    }
    return SdxlConditioning(**(fields | changes))


SMALL: dict[str, Any] = {"width": 96, "height": 64, "num_inference_steps": 5, "sdxl": told()}
a_spec = partial(builders.a_spec, **SMALL)
an_image_to_image = partial(builders.an_image_to_image, **SMALL)
an_inpainting = partial(builders.an_inpainting, **SMALL, keep_outside=False)

NEGATIVE = {"negative_prompt": "blurry"}
READ_BY_ALL: list[dict[str, Any]] = [
    {"guidance_scale": 1.0},
    {"guidance_rescale": 0.7},
    {"width": 64, "height": 128},
    {"clip_skip": 1},
    {"clip_skip": 1, **NEGATIVE},
    NEGATIVE,
    {**NEGATIVE, "sdxl": told(negative_prompt_2="dark")},
    {"prompt": "so many words " * 20},
    {"sdxl": told(original_size=(70, 120))},
    {"sdxl": told(crops_coords_top_left=(17, 5), negative_crops_coords_top_left=(17, 5))},
    {"sdxl": told(negative_original_size=(56, 40))},
]
READ_BY_A_BASE: list[dict[str, Any]] = [
    {"sdxl": told(negative_prompt_2="dark")},
    {"sdxl": told(prompt_2="")},
    {"sdxl": told(prompt_2="another text")},
    {"sdxl": told(target_size=(64, 96))},
    {"sdxl": told(negative_target_size=(72, 32))},
]
READ_BY_A_REFINER: list[dict[str, Any]] = [
    {"sdxl": told(aesthetic_score=1.0)},
    {"sdxl": told(negative_aesthetic_score=9.0)},
]


@pytest.mark.parametrize("sampler", Sampler)
def test_every_sampler_draws_what_diffusers_draws(replica: Replica, sampler: Sampler) -> None:
    base, spec = replica("sdxl-base"), a_spec(sampler=sampler)
    theirs = oracle.latents(base.folder, spec)
    assert apart(draw(base.denoiser, spec).latents, theirs) < TOLERANCE


@pytest.mark.parametrize("changes", READ_BY_ALL + READ_BY_A_BASE, ids=str)
def test_every_parameter_means_to_a_base_what_it_means_to_diffusers(
    replica: Replica, changes: dict[str, Any]
) -> None:
    base, spec = replica("sdxl-base"), a_spec(**changes)
    ours = draw(base.denoiser, spec).latents
    assert apart(ours, oracle.latents(base.folder, spec)) < TOLERANCE
    assert differs(ours, draw(base.denoiser, a_spec()).latents)


@pytest.mark.parametrize("changes", READ_BY_ALL + READ_BY_A_REFINER, ids=str)
def test_every_parameter_means_to_a_refiner_what_it_means_to_diffusers(
    replica: Replica, changes: dict[str, Any]
) -> None:
    refiner, spec = replica("sdxl-refiner"), an_image_to_image(**changes)
    ours = draw(refiner.denoiser, spec, inputs=PAINTED).latents
    assert apart(ours, oracle.latents(refiner.folder, spec, PAINTED)) < TOLERANCE
    assert differs(ours, draw(refiner.denoiser, an_image_to_image(), inputs=PAINTED).latents)


@pytest.mark.parametrize("changes", READ_BY_A_BASE, ids=str)
def test_a_refiner_reads_neither_second_prompts_nor_target_sizes(
    replica: Replica, changes: dict[str, Any]
) -> None:
    refiner, spec = replica("sdxl-refiner"), an_image_to_image(**changes)
    ours = draw(refiner.denoiser, spec, inputs=PAINTED).latents
    assert apart(ours, oracle.latents(refiner.folder, spec, PAINTED)) < TOLERANCE
    assert torch.equal(ours, draw(refiner.denoiser, an_image_to_image(), inputs=PAINTED).latents)


def differs(ours: torch.Tensor, others: torch.Tensor) -> bool:
    """By more than what passes for the same."""
    return ours.shape != others.shape or apart(ours, others) > TOLERANCE


@pytest.mark.parametrize("sampler", STOCHASTIC_OR_SECOND_ORDER)
@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sdxl-base", an_image_to_image),
        ("sdxl-refiner", an_image_to_image),
        ("sdxl-base", an_inpainting),
        ("sdxl-inpainting", an_inpainting),
    ],
    ids=["base", "refiner", "inpainting", "inpainting of 9 channels"],
)
def test_every_task_draws_what_diffusers_draws(
    replica: Replica,
    name: str,
    make: Callable[..., AnySpec],
    strength: float,
    sampler: Sampler,
) -> None:
    spec = make(sampler=sampler, strength=strength)
    theirs = oracle.latents(replica(name).folder, spec, PAINTED)
    assert apart(draw(replica(name).denoiser, spec, inputs=PAINTED).latents, theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("sdxl-base", a_spec()),
        ("sdxl-refiner", an_image_to_image()),
        ("sdxl-base", an_inpainting(padding_mask_crop=4)),
        ("sdxl-inpainting", an_inpainting()),
    ],
)
def test_the_picture_is_that_of_diffusers_to_a_grey_level(
    replica: Replica, name: str, spec: AnySpec
) -> None:
    theirs = oracle.picture(replica(name).folder, spec, PAINTED).astype(int)
    ours = decoded(replica(name).denoiser, draw(replica(name).denoiser, spec, inputs=PAINTED))
    assert ours.shape == theirs.shape == (64, 96, 3)
    assert np.abs(ours - theirs).max() <= 1


def an_ensemble(sampler: Sampler, switch_at: float, **changes: Any) -> TextToImage:
    own = {"sampler": sampler, "num_inference_steps": 6}
    refiner = builders.a_refiner(switch_at=switch_at, guidance_scale=3.0, **own)
    return a_spec(refiner=refiner, guidance_rescale=0.3, **own, **changes)


def handed(latents: torch.Tensor) -> Inputs:
    return Inputs(latents=latents[0].numpy())


@pytest.mark.parametrize("sampler", [s for s in Sampler if s is not Sampler.IPNDM])
@pytest.mark.parametrize("switch_at", [0.8, 0.45])
def test_an_ensemble_draws_what_the_two_pipelines_of_diffusers_draw(
    replica: Replica, sampler: Sampler, switch_at: float
) -> None:
    base, refiner = replica("sdxl-base"), replica("sdxl-refiner")
    first, second = stages(an_ensemble(sampler, switch_at))
    half_way = draw(base.denoiser, first)
    array = base.denoiser.decode([half_way])[0].array()
    ours = draw(refiner.denoiser, second, inputs=Inputs(latents=np.asarray(array, np.float32)))
    theirs = oracle.latents(base.folder, first)
    assert apart(half_way.latents, theirs) < TOLERANCE
    theirs = oracle.latents(refiner.folder, second, handed(theirs))
    assert apart(ours.latents, theirs) < TOLERANCE
    assert half_way.steps_total > 0
    assert ours.steps_total > 0


@pytest.mark.parametrize("switch_at", [0.8, 0.5, 0.31])
def test_the_experts_of_an_ensemble_share_one_schedule(replica: Replica, switch_at: float) -> None:
    first, second = stages(an_ensemble(Sampler.DDIM, switch_at))
    latents = Inputs(latents=np.zeros((4, 8, 12), np.float32))
    steps = [
        *prepare(replica("sdxl-base").denoiser, first).timesteps,
        *prepare(replica("sdxl-refiner").denoiser, second, inputs=latents).timesteps,
    ]
    assert steps == list(prepare(replica("sdxl-base").denoiser, Stage(spec=first.spec)).timesteps)


@pytest.mark.parametrize("stage", [{"end": 0.8}, {"begin": 0.8, "takes": Handover.LATENTS}])
def test_a_sampler_of_other_timesteps_is_refused_an_ensemble(
    replica: Replica, stage: dict[str, Any]
) -> None:
    spec = a_spec(sampler=Sampler.IPNDM)
    with pytest.raises(InvalidSpec, match="choose another") as caught:
        prepare(replica("sdxl-base").denoiser, Stage(spec=spec, **stage))
    assert caught.value.field == "sampler"


def test_a_refiner_draws_over_the_finished_picture(replica: Replica) -> None:
    base, refiner = replica("sdxl-base"), replica("sdxl-refiner")
    over = Refiner(**dict(builders.a_refiner()) | {"switch_at": 1.0, "strength": 0.5})
    first, second = stages(a_spec(refiner=over))
    picture = decoded(base.denoiser, draw(base.denoiser, first))
    ours = draw(refiner.denoiser, second, inputs=Inputs(image=picture))
    theirs = oracle.latents(refiner.folder, second, Inputs(image=picture))
    assert ours.steps_total == 2
    assert apart(ours.latents, theirs) < TOLERANCE


def test_company_does_not_change_the_picture(replica: Replica) -> None:
    base = replica("sdxl-base")
    guests = [
        Guest(
            a_spec(
                sampler=sampler,
                prompt=f"{number} red circles",
                negative_prompt="blurry" if number % 2 else "",
                num_inference_steps=3 + number % 4,
                guidance_scale=(7.5, 1.0, 3.0)[number % 3],
                guidance_rescale=0.7 * (number % 2),
                clip_skip=number % 3 // 2,
                seed=100 + number,
                sdxl=told(original_size=(100 + number, 70), prompt_2="a cat" * (number % 2)),
            ),
            joins=number // 2,
        )
        for number, sampler in enumerate(STOCHASTIC_OR_SECOND_ORDER)
    ]
    guests += [
        Guest(an_image_to_image(seed=7), 2, PAINTED),
        Guest(an_inpainting(seed=8, sampler=Sampler.EULER_A), 3, PAINTED),
        Guest(stages(an_ensemble(Sampler.HEUN, 0.8))[0], 1),
    ]
    states = draw_together(base.denoiser, guests)
    assert len({state.bucket for state in states}) == 1
    for guest, state in zip(guests, states, strict=True):
        theirs = oracle.latents(base.folder, guest.drawn, guest.inputs)
        assert apart(state.latents, theirs) < TOLERANCE, guest


def test_company_does_not_change_what_a_refiner_draws(replica: Replica) -> None:
    refiner = replica("sdxl-refiner")
    latents = handed(torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0)))
    guests = [
        Guest(an_image_to_image(guidance_scale=1.0), 0, PAINTED),
        Guest(stages(an_ensemble(Sampler.DPMPP_2M_SDE, 0.5, seed=5))[1], 1, latents),
        Guest(an_image_to_image(sampler=Sampler.HEUN, seed=9, **NEGATIVE), 2, PAINTED),
    ]
    states = draw_together(refiner.denoiser, guests)
    assert len({state.bucket for state in states}) == 1
    for guest, state in zip(guests, states, strict=True):
        theirs = oracle.latents(refiner.folder, guest.drawn, guest.inputs)
        assert apart(state.latents, theirs) < TOLERANCE, guest


FIRST, SECOND = "x " * 75, "y " * 10
"""Two chunks: every letter is a token."""
a_long_spec = partial(a_spec, long_prompts=LongPrompts.CHUNK)


def encoded(base: Checkpoint, text: str, text_2: str) -> torch.Tensor:
    """By diffusers: (1, 77, width)."""
    pipe, _ = oracle.pipeline(base.folder)
    with torch.no_grad():
        embedding: torch.Tensor = pipe.encode_prompt(text, text_2, "cpu", 1, False)[0]
    return embedding


def test_a_shorter_text_goes_on_with_empty_chunks(replica: Replica) -> None:
    base = replica("sdxl-base")
    spec = a_long_spec(prompt=FIRST + SECOND, sdxl=told(prompt_2="short"), **NEGATIVE)
    told_of = prepare(base.denoiser, spec).conditioning
    negative = [encoded(base, "blurry", "blurry"), encoded(base, " ", " ")]
    prompt = [encoded(base, FIRST, "short"), encoded(base, SECOND, " ")]
    theirs = torch.cat([torch.cat(negative, dim=1), torch.cat(prompt, dim=1)])
    torch.testing.assert_close(told_of.embeddings, theirs)


def test_a_prompt_goes_on_with_chunks_of_its_own_layer(replica: Replica) -> None:
    denoiser = replica("sdxl-base").denoiser
    skipping = partial(a_long_spec, clip_skip=1, sdxl=told(prompt_2=""))
    long = prepare(denoiser, skipping(prompt="short", negative_prompt=FIRST + SECOND))
    empty = prepare(denoiser, skipping(prompt="", guidance_scale=1.0))
    assert torch.equal(long.conditioning.embeddings[1, 77:], empty.conditioning.embeddings[0])


@pytest.mark.parametrize("text", [{"prompt": "short"}, {"prompt": FIRST + SECOND}], ids=len)
def test_an_empty_negative_prompt_is_zeros_however_long_the_prompt(
    replica: Replica, text: dict[str, str]
) -> None:
    told_of = prepare(replica("sdxl-base").denoiser, a_long_spec(**text)).conditioning
    assert told_of.pooled is not None
    assert told_of.embeddings[0].eq(0).all()
    assert told_of.pooled[0].eq(0).all()
    assert told_of.embeddings[1].ne(0).any()


def test_long_prompts_keep_company_with_short_ones(replica: Replica) -> None:
    denoiser = replica("sdxl-base").denoiser
    guests = [
        Guest(a_long_spec(prompt=FIRST + SECOND), joins=0),
        Guest(a_long_spec(sdxl=told(prompt_2=FIRST + SECOND), **NEGATIVE), joins=1),
        Guest(a_long_spec(), joins=1),
        Guest(a_long_spec(guidance_scale=1.0), joins=2),
    ]
    for guest, state in zip(guests, draw_together(denoiser, guests), strict=True):
        assert apart(state.latents, draw(denoiser, guest.drawn).latents) < TOLERANCE


def test_words_that_both_encoders_lose_are_named_once(replica: Replica) -> None:
    spec = a_spec(prompt=FIRST + SECOND, sdxl=told(prompt_2=""), negative_prompt="z" * 80)
    prompt, negative = prepare(replica("sdxl-base").denoiser, spec).warnings
    assert (prompt.code, prompt.field) == ("prompt_truncated", "prompt")
    assert (negative.code, negative.field) == ("prompt_truncated", "negative_prompt")


def test_words_that_the_second_encoder_loses_are_named_as_its_own(replica: Replica) -> None:
    spec = a_spec(sdxl=told(prompt_2=FIRST + SECOND))
    (lost,) = prepare(replica("sdxl-base").denoiser, spec).warnings
    assert lost.field == "prompt_2"
    assert lost.message.startswith("prompt_2 ")


def test_a_second_prompt_that_is_too_long_is_refused_by_its_name(replica: Replica) -> None:
    spec = a_spec(sdxl=told(prompt_2=FIRST + SECOND), long_prompts=LongPrompts.REJECT)
    with pytest.raises(InvalidSpec) as caught:
        prepare(replica("sdxl-base").denoiser, spec)
    assert caught.value.field == "prompt_2"


def test_the_crop_of_the_negative_prompt_counts_over_a_picture_too(replica: Replica) -> None:
    denoiser = replica("sdxl-base").denoiser
    cropped = an_image_to_image(sdxl=told(negative_crops_coords_top_left=(30, 40)))
    time_ids = prepare(denoiser, cropped, inputs=PAINTED).conditioning.time_ids
    assert time_ids is not None
    assert time_ids.tolist() == [[56, 40, 40, 30, 72, 32], [70, 120, 17, 5, 64, 96]]


def test_sizes_are_told_exactly_in_any_precision(replica: Replica) -> None:
    folder = replica("sdxl-base").folder
    half = load(zoo.card("sdxl-base", folder), "cpu", "bfloat16")
    state = draw(half, a_spec(guidance_scale=1.0, sdxl=told(original_size=(1001, 4093))))
    assert state.conditioning.time_ids is not None
    assert state.conditioning.time_ids[0, :2].tolist() == [4093, 1001]
    assert state.latents.dtype == torch.bfloat16


def test_a_spec_without_sizes_is_refused(replica: Replica) -> None:
    with pytest.raises(InvalidSpec) as caught:
        prepare(replica("sdxl-base").denoiser, a_spec(sdxl=None))
    assert caught.value.field == "sdxl"


def test_more_clip_skip_than_layers_is_refused(replica: Replica) -> None:
    with pytest.raises(InvalidSpec) as caught:
        prepare(replica("sdxl-base").denoiser, a_spec(clip_skip=3))
    assert caught.value.field == "clip_skip"
