"""The sd family draws what diffusers draws, alone and in company."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from server.errors import DeviceLost, InvalidSpec, NotFinite, OutOfMemory
from server.models.loading import load
from server.spec import SPACED, Sampler, Sigmas
from tests import builders
from tests.models import oracle, tiny
from tests.models.conftest import Checkpoint
from tests.models.drawing import Guest, apart, draw, draw_together, prepare, step

TOLERANCE = 1e-5
a_spec = partial(builders.a_spec, width=64, height=64, num_inference_steps=5)
SPACINGS = [
    (sampler, sigmas)
    for sampler in sorted(SPACED)
    for sigmas in Sigmas
    if sigmas is not Sigmas.DEFAULT
]


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("predicts", ["epsilon", "v"])
def test_every_sampler_draws_what_diffusers_draws(
    v1: Checkpoint, v2: Checkpoint, predicts: str, sampler: Sampler
) -> None:
    checkpoint = v1 if predicts == "epsilon" else v2
    spec = a_spec(sampler=sampler)
    theirs = oracle.latents(checkpoint.folder, spec)
    assert apart(draw(checkpoint.denoiser, spec).latents, theirs) < TOLERANCE


@pytest.mark.parametrize(("sampler", "sigmas"), SPACINGS)
def test_every_spacing_draws_what_diffusers_draws(
    v1: Checkpoint, sampler: Sampler, sigmas: Sigmas
) -> None:
    spec = a_spec(sampler=sampler, sigmas=sigmas)
    theirs = oracle.latents(v1.folder, spec)
    assert apart(draw(v1.denoiser, spec).latents, theirs) < TOLERANCE


@pytest.mark.parametrize("first", [0, 9, 11])
def test_company_does_not_change_the_picture(v1: Checkpoint, first: int) -> None:
    guests = [
        Guest(
            a_spec(
                sampler=sampler,
                prompt=f"{number} red circles",
                negative_prompt="blurry" if number % 2 else "",
                num_inference_steps=3 + number % 4,
                guidance_scale=(7.5, 1.0, 3.0)[number % 3],
                guidance_rescale=0.7 * (number % 2),
                eta=0.1 * number,
                seed=100 + number,
            ),
            joins=number // 2,
        )
        for number, sampler in enumerate(list(Sampler)[first : first + 9])
    ]
    for guest, state in zip(guests, draw_together(v1.denoiser, guests), strict=True):
        theirs = oracle.latents(v1.folder, guest.drawn)
        assert apart(state.latents, theirs) < TOLERANCE, guest.drawn.sampler


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.0, "negative_prompt": "unused"},
        {"guidance_rescale": 0.7},
        {"negative_prompt": "blurry, low quality"},
        {"sampler": Sampler.DDIM, "eta": 0.8},
        {"sampler": Sampler.TCD, "eta": 0.3},
        {"width": 128, "height": 64},
        {"width": 64, "height": 192},
        {"prompt": "so many words " * 20},
        {"prompt": ""},
    ],
    ids=str,
)
def test_every_parameter_means_what_it_means_to_diffusers(
    v1: Checkpoint, v2: Checkpoint, changes: dict[str, object]
) -> None:
    spec = a_spec(**changes)
    for checkpoint in (v1, v2):
        theirs = oracle.latents(checkpoint.folder, spec)
        assert apart(draw(checkpoint.denoiser, spec).latents, theirs) < TOLERANCE


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_leaves_out_layers_of_the_prompt_only(v1: Checkpoint, clip_skip: int) -> None:
    spec = a_spec(clip_skip=clip_skip, negative_prompt="blurry")
    pipe, _ = oracle.pipeline(v1.folder)
    # The pipeline's own clip_skip does not work with transformers 5, so its steps are done here.
    with torch.no_grad():
        ids = pipe.tokenizer(
            spec.prompt, padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids
        hidden = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-clip_skip - 1]
        prompt = pipe.text_encoder.final_layer_norm(hidden)
        negative, _ = pipe.encode_prompt(spec.negative_prompt, "cpu", 1, False)
    theirs = oracle.latents(v1.folder, spec, prompt_embeds=prompt, negative_prompt_embeds=negative)
    assert apart(draw(v1.denoiser, spec).latents, theirs) < TOLERANCE


@pytest.mark.parametrize("sampler", Sampler)
def test_every_sampler_keeps_the_precision_of_the_model(v1: Checkpoint, sampler: Sampler) -> None:
    half = load(tiny.card(v1.folder), "cpu", "bfloat16")
    spec = a_spec(sampler=sampler, num_inference_steps=3)
    state = draw(half, spec)
    assert state.latents.dtype == torch.bfloat16
    assert apart(state.latents.float(), oracle.latents(v1.folder, spec)) < 0.3
    half.decode([state])[0].array()


def test_image_i_is_drawn_with_seed_plus_i(v1: Checkpoint) -> None:
    spec = a_spec(sampler=Sampler.EULER_A, num_images=3)
    for index in range(3):
        theirs = oracle.latents(v1.folder, spec, index=index)
        assert apart(draw(v1.denoiser, spec, index).latents, theirs) < TOLERANCE


def test_pictures_are_those_of_diffusers_to_a_grey_level(v1: Checkpoint) -> None:
    specs = [a_spec(seed=seed, width=128) for seed in range(3)]
    pictures = v1.denoiser.decode([draw(v1.denoiser, spec) for spec in specs])
    for spec, ours in zip(specs, pictures, strict=True):
        theirs = oracle.picture(v1.folder, spec)
        array = ours.array()
        assert array.shape == theirs.shape == (64, 128, 3)
        assert array.dtype == np.uint8
        assert np.abs(array.astype(int) - theirs.astype(int)).max() <= 1


def test_the_oracle_would_notice_another_prompt_seed_or_step(v1: Checkpoint) -> None:
    spec = a_spec()
    mine = draw(v1.denoiser, spec).latents
    for other in ({"prompt": "a blue star"}, {"seed": 2}, {"num_inference_steps": 6}):
        assert apart(draw(v1.denoiser, a_spec(**other)).latents, mine) > 100 * TOLERANCE


@pytest.mark.parametrize("sampler", Sampler)
def test_predicting_again_or_in_halves_changes_nothing(v1: Checkpoint, sampler: Sampler) -> None:
    specs = [a_spec(sampler=sampler, seed=seed, num_inference_steps=4) for seed in range(2)]
    calm = [draw(v1.denoiser, spec).latents for spec in specs]
    states = [prepare(v1.denoiser, spec) for spec in specs]
    while states[0].steps_done < states[0].steps_total:
        v1.denoiser.predict(states)
        v1.denoiser.predict(states[:1])
        step(v1.denoiser, states[:1])
        step(v1.denoiser, states[1:])
    for state, latents in zip(states, calm, strict=True):
        assert apart(state.latents, latents) < TOLERANCE


@pytest.mark.parametrize("sampler", [s for s in Sampler if s is not Sampler.IPNDM])
@pytest.mark.parametrize("steps", [1, 2])
def test_one_and_two_steps_are_enough(v1: Checkpoint, sampler: Sampler, steps: int) -> None:
    spec = a_spec(sampler=sampler, num_inference_steps=steps)
    theirs = oracle.latents(v1.folder, spec)
    assert apart(draw(v1.denoiser, spec).latents, theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [(Sampler.EULER, 5), (Sampler.PNDM, 6), (Sampler.HEUN, 9), (Sampler.DPM2, 9)],
)
def test_steps_total_counts_unet_calls(v1: Checkpoint, sampler: Sampler, calls: int) -> None:
    assert prepare(v1.denoiser, a_spec(sampler=sampler)).steps_total == calls


def test_a_state_says_what_the_planner_asks(v1: Checkpoint) -> None:
    guided = prepare(v1.denoiser, a_spec(width=128))
    plain = prepare(v1.denoiser, a_spec(width=128, guidance_scale=1.0, prompt="x"))
    square = prepare(v1.denoiser, a_spec())
    assert (guided.rows, plain.rows) == (2, 1)
    assert guided.pixels == 128 * 64
    assert guided.bucket == plain.bucket != square.bucket
    assert len({guided.bucket, plain.bucket, square.bucket}) == 2


def test_a_prompt_goes_on_with_chunks_of_its_own_layer(v1: Checkpoint) -> None:
    skipping = partial(a_spec, clip_skip=2, long_prompts="chunk")
    long = prepare(v1.denoiser, skipping(prompt="short", negative_prompt="x " * 80))
    empty = prepare(v1.denoiser, skipping(prompt="", guidance_scale=1.0))
    assert torch.equal(long.conditioning.embeddings[1, 77:], empty.conditioning.embeddings[0])


def test_words_that_were_cut_off_are_named(v1: Checkpoint) -> None:
    state = prepare(v1.denoiser, a_spec(prompt="x" * 75 + " lost words", negative_prompt="y" * 80))
    prompt, negative = state.warnings
    assert (prompt.code, prompt.field) == ("prompt_truncated", "prompt")
    assert "lost words" in prompt.message
    assert (negative.code, negative.field) == ("prompt_truncated", "negative_prompt")


def test_an_unused_negative_prompt_is_not_warned_about(v1: Checkpoint) -> None:
    spec = a_spec(guidance_scale=1.0, negative_prompt="y" * 80)
    assert prepare(v1.denoiser, spec).warnings == ()


def test_latents_that_are_not_finite_make_no_picture(v1: Checkpoint) -> None:
    sick, well = (draw(v1.denoiser, a_spec(seed=seed)) for seed in range(2))
    sick.latents = sick.latents.clone()
    sick.latents[0, 0, 0, 0] = float("nan")
    bad, good = v1.denoiser.decode([sick, well])
    with pytest.raises(NotFinite):
        bad.array()
    assert good.array().shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (torch.AcceleratorError("an illegal memory access was encountered"), DeviceLost),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_errors_of_the_device_come_out_as_ours(
    v1: Checkpoint, monkeypatch: pytest.MonkeyPatch, theirs: RuntimeError, ours: type[BaseException]
) -> None:
    state = prepare(v1.denoiser, a_spec())

    def failing(*_: object, **__: object) -> None:
        raise theirs

    monkeypatch.setattr(v1.denoiser, "_unet", failing)
    with pytest.raises(ours):
        v1.denoiser.predict([state])
    assert state.steps_done == 0


def test_more_clip_skip_than_layers_is_refused(v1: Checkpoint) -> None:
    with pytest.raises(InvalidSpec) as caught:
        prepare(v1.denoiser, a_spec(clip_skip=4))
    assert caught.value.field == "clip_skip"


def test_it_says_what_it_is(v1: Checkpoint) -> None:
    assert v1.denoiser.device == torch.device("cpu")
    assert v1.denoiser.dtype == torch.float32
    assert v1.denoiser.parameters > 800_000
    assert v1.denoiser.peak_memory_bytes() > 10_000_000
