"""Every task draws what diffusers' pipeline for it draws, and does what its parameters say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from server.catalog import load_catalog
from server.errors import InvalidSpec
from server.models.autoencoder import Autoencoder
from server.models.depth import DepthReader
from server.models.loading import load
from server.models.sources import locate
from server.pixels import Inputs
from server.spec import SPACED, AnySpec, Sampler, Sigmas
from server.workers.engine import Engine, Ticket
from tests import builders
from tests.models import oracle, zoo
from tests.models.conftest import Checkpoint
from tests.models.drawing import (
    Guest,
    a_depth,
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
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 5}
a_spec = partial(builders.a_spec, **SMALL)
an_image_to_image = partial(builders.an_image_to_image, **SMALL)
an_inpainting = partial(builders.an_inpainting, **SMALL, keep_outside=False)
a_depth_to_image = partial(builders.a_depth_to_image, **SMALL)
an_upscale = partial(builders.an_upscale, **SMALL | {"width": 128, "height": 128})

PAINTED = Inputs(image=a_picture(), mask=a_mask())
# The picture is not of the size that is drawn, and neither square.
WIDE = {"width": 96, "height": 64}
OTHER_SIZE = Inputs(image=a_picture(80, 100), mask=a_mask(80, 100), depth=a_depth(50, 70))
CASES: list[tuple[str, AnySpec, Inputs]] = [
    ("sd-v1", an_image_to_image(), PAINTED),
    ("sd-v1", an_image_to_image(strength=0.9, **WIDE), OTHER_SIZE),
    ("sd-v1", an_inpainting(), PAINTED),
    ("sd-v1", an_inpainting(strength=0.6, **WIDE), OTHER_SIZE),
    ("sd-v1", an_inpainting(padding_mask_crop=4), PAINTED),
    ("sd-v1", an_inpainting(padding_mask_crop=0, strength=0.6, **WIDE), OTHER_SIZE),
    ("sd-v1-inpainting", an_inpainting(), PAINTED),
    ("sd-v1-inpainting", an_inpainting(strength=0.6, **WIDE), OTHER_SIZE),
    ("sd-v1-inpainting", an_inpainting(padding_mask_crop=8, strength=0.6), OTHER_SIZE),
    ("sd-v2-inpainting", an_inpainting(), PAINTED),
    ("sd-v2-depth", a_depth_to_image(**WIDE), OTHER_SIZE),
    ("sd-v2-depth", a_depth_to_image(depth_map=None), Inputs(image=a_picture())),
    ("sd-v2-depth", a_depth_to_image(depth_map=None, **WIDE), Inputs(image=a_picture(80, 100))),
    ("sd-v2-depth", a_depth_to_image(strength=0.3), Inputs(image=a_picture(), depth=a_depth())),
    ("sd-x4-upscaler", an_upscale(), Inputs(image=a_picture(32, 32))),
    ("sd-x4-upscaler", an_upscale(noise_level=0), Inputs(image=a_picture(32, 32))),
    ("sd-x4-upscaler", an_upscale(noise_level=350, width=192), Inputs(image=a_picture(20, 50))),
]


@pytest.mark.parametrize(("name", "spec", "inputs"), CASES)
def test_the_picture_is_that_of_diffusers_to_a_grey_level(
    replica: Replica, name: str, spec: AnySpec, inputs: Inputs
) -> None:
    theirs = oracle.picture(replica(name).folder, spec, inputs).astype(int)
    ours = decoded(replica(name).denoiser, draw(replica(name).denoiser, spec, inputs=inputs))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("sampler", [Sampler.EULER_A, Sampler.HEUN, Sampler.PNDM])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sd-v1", an_image_to_image),
        ("sd-v1", an_inpainting),
        ("sd-v2-inpainting", an_inpainting),
        ("sd-v2-depth", a_depth_to_image),
    ],
    ids=["image-to-image", "inpainting", "inpainting of 9 channels", "depth-to-image"],
)
def test_strength_is_the_share_of_the_steps_that_diffusers_takes(
    replica: Replica,
    name: str,
    make: Callable[..., AnySpec],
    sampler: Sampler,
    strength: float,
) -> None:
    spec = make(sampler=sampler, strength=strength)
    inputs = Inputs(image=a_picture(), mask=a_mask(), depth=a_depth())
    theirs = oracle.latents(replica(name).folder, spec, inputs)
    assert apart(draw(replica(name).denoiser, spec, inputs=inputs).latents, theirs) < TOLERANCE


SPACINGS = [
    (sampler, sigmas)
    for sampler in Sampler
    for sigmas in (Sigmas.DEFAULT, Sigmas.KARRAS, Sigmas.BETA)
    if sampler in SPACED or (sigmas is Sigmas.DEFAULT and sampler is not Sampler.IPNDM)
]


@pytest.mark.parametrize(("sampler", "sigmas"), SPACINGS)
@pytest.mark.parametrize(("steps", "strength"), [(5, 0.2), (20, 0.2)])
def test_every_sampler_and_spacing_can_begin_late(
    replica: Replica, sampler: Sampler, sigmas: Sigmas, steps: int, strength: float
) -> None:
    spec = an_inpainting(
        sampler=sampler, sigmas=sigmas, num_inference_steps=steps, strength=strength
    )
    checkpoint = replica("sd-v1")
    theirs = oracle.latents(checkpoint.folder, spec, PAINTED)
    assert apart(draw(checkpoint.denoiser, spec, inputs=PAINTED).latents, theirs) < TOLERANCE


@pytest.mark.parametrize(("name", "spec", "inputs"), CASES)
def test_every_task_keeps_the_precision_of_the_model(
    replica: Replica, name: str, spec: AnySpec, inputs: Inputs
) -> None:
    whole = replica(name)
    half = load(zoo.card(name, whole.folder), "cpu", "bfloat16")
    state = draw(half, spec, inputs=inputs)
    assert state.latents.dtype == torch.bfloat16
    assert apart(state.latents.float(), draw(whole.denoiser, spec, inputs=inputs).latents) < 0.1
    decoded(half, state)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("sd-v1", an_image_to_image(strength=0)),
        ("sd-v1", an_image_to_image(strength=0.1)),
        ("sd-v1", an_inpainting(strength=0)),
        ("sd-v2-inpainting", an_inpainting(strength=0)),
        ("sd-v2-depth", a_depth_to_image(strength=0)),
    ],
)
def test_no_steps_give_the_picture_back_through_the_autoencoder(
    replica: Replica, name: str, spec: AnySpec
) -> None:
    inputs = Inputs(image=a_picture(), mask=a_mask(), depth=a_depth())
    checkpoint = replica(name)
    engine = Engine(checkpoint.denoiser, max_step_pixels=10**9)
    state = prepare(checkpoint.denoiser, spec, inputs=inputs)
    assert state.steps_total == 0
    engine.admit(Ticket("a", 0, state, 0, float("inf")))
    (outcome,) = engine.step().outcomes
    assert outcome.picture is not None
    assert not engine.busy
    np.testing.assert_allclose(
        outcome.picture.array().astype(int), _through_the_autoencoder(checkpoint, spec), atol=1
    )


def _through_the_autoencoder(checkpoint: Checkpoint, spec: AnySpec) -> np.ndarray:
    """By diffusers' own parts."""
    pipe, _ = oracle.pipeline(checkpoint.folder, spec.task)
    with torch.no_grad():
        sent = torch.from_numpy(a_picture()).permute(2, 0, 1)[None] / 127.5 - 1
        coded = pipe.vae.encode(sent).latent_dist.sample(torch.Generator().manual_seed(spec.seed))
        image = pipe.vae.decode(coded).sample[0].permute(1, 2, 0)
    return ((image / 2 + 0.5).clamp(0, 1) * 255).round().numpy().astype(int)


@pytest.mark.parametrize("sampler", [Sampler.DDIM, Sampler.EULER, Sampler.HEUN, Sampler.DPMPP_2M])
def test_at_full_strength_image_to_image_is_text_to_image_from_other_first_latents(
    replica: Replica, sampler: Sampler
) -> None:
    denoiser = replica("sd-v1").denoiser
    from_picture = prepare(
        denoiser, an_image_to_image(strength=1.0, sampler=sampler), inputs=PAINTED
    )
    from_noise = prepare(denoiser, a_spec(sampler=sampler))
    assert from_picture.timesteps == from_noise.timesteps
    assert not torch.equal(from_picture.latents, from_noise.latents)
    from_picture.latents = from_noise.latents.clone()
    for state in (from_picture, from_noise):
        while state.steps_done < state.steps_total:
            denoiser.advance(state, denoiser.predict([state])[0])
    torch.testing.assert_close(from_picture.latents, from_noise.latents, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["sd-v1", "sd-v1-inpainting"])
@pytest.mark.parametrize("changes", [{}, {"strength": 0.5}, {"padding_mask_crop": 4}], ids=str)
def test_what_is_kept_outside_comes_back_bit_for_bit(
    replica: Replica, name: str, changes: dict[str, Any]
) -> None:
    spec, denoiser = an_inpainting(**changes, keep_outside=True), replica(name).denoiser
    drawn = decoded(denoiser, draw(denoiser, spec, inputs=PAINTED))
    outside = a_mask() == 0
    np.testing.assert_array_equal(drawn[outside], a_picture()[outside])
    changed = (drawn[~outside] != a_picture()[~outside]).any(axis=-1)
    assert changed.mean() > 0.9


def test_without_keep_outside_all_goes_through_the_autoencoder(replica: Replica) -> None:
    denoiser = replica("sd-v1").denoiser
    drawn = decoded(denoiser, draw(denoiser, an_inpainting(), inputs=PAINTED))
    outside = a_mask() == 0
    assert (drawn[outside] != a_picture()[outside]).any(axis=-1).mean() > 0.9


def test_the_edge_of_a_soft_mask_is_blended(replica: Replica) -> None:
    denoiser = replica("sd-v1").denoiser
    soft = a_mask()
    soft[:, 31] = 100  # not drawn again, and yet not quite outside
    inputs = Inputs(image=a_picture(), mask=soft)
    drawn = decoded(denoiser, draw(denoiser, an_inpainting(keep_outside=True), inputs=inputs))
    np.testing.assert_array_equal(drawn[soft == 0], a_picture()[soft == 0])
    assert (drawn[soft == 100] != a_picture()[soft == 100]).any()


def test_a_black_mask_has_no_surroundings_to_crop_to(replica: Replica) -> None:
    inputs = Inputs(image=a_picture(), mask=np.zeros_like(a_mask()))
    with pytest.raises(InvalidSpec, match="black everywhere") as caught:
        prepare(replica("sd-v1").denoiser, an_inpainting(padding_mask_crop=4), inputs=inputs)
    assert caught.value.field == "mask_image"


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (512, 513)])
@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0, 7.7])
def test_a_flat_depth_map_is_far_everywhere(depth: float, size: tuple[int, int]) -> None:
    flat = Inputs(depth=np.full(size, depth, np.float32))
    read = DepthReader(None).read(flat, 64, 64, (8, 8))
    assert read.eq(-1).all()


def test_a_flat_depth_map_draws_a_picture(replica: Replica) -> None:
    denoiser = replica("sd-v2-depth").denoiser
    flat = Inputs(image=a_picture(), depth=np.full((64, 64), 0.3, np.float32))
    assert draw(denoiser, a_depth_to_image(), inputs=flat).latents.isfinite().all()


def test_the_scale_of_a_depth_map_does_not_matter(replica: Replica) -> None:
    denoiser = replica("sd-v2-depth").denoiser
    near, far = (
        draw(denoiser, a_depth_to_image(), inputs=Inputs(image=a_picture(), depth=depth)).latents
        for depth in (a_depth(), 1000 * a_depth() + 7)
    )
    assert apart(near, far) < TOLERANCE


def test_a_checkpoint_without_its_estimator_asks_for_a_depth_map() -> None:
    with pytest.raises(InvalidSpec, match="send a depth_map") as caught:
        DepthReader(None).read(Inputs(image=a_picture()), 64, 64, (8, 8))
    assert caught.value.field == "depth_map"


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("sd-v1", a_depth_to_image()),
        ("sd-v1", an_upscale()),
        ("sd-v1-inpainting", a_spec()),
        ("sd-v1-inpainting", an_image_to_image()),
        ("sd-v2-depth", a_spec()),
        ("sd-v2-depth", an_inpainting()),
        ("sd-x4-upscaler", a_spec(width=128, height=128)),
        ("sd-x4-upscaler", an_image_to_image(width=128, height=128)),
    ],
)
def test_a_task_that_the_unet_is_not_made_for_is_refused(
    replica: Replica, name: str, spec: AnySpec
) -> None:
    inputs = Inputs(image=a_picture(), mask=a_mask(), depth=a_depth())
    with pytest.raises(InvalidSpec) as caught:
        prepare(replica(name).denoiser, spec, inputs=inputs)
    assert caught.value.field == "task"


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("sd-v1", an_image_to_image(sampler=Sampler.IPNDM)),
        ("sd-v1", an_inpainting(sampler=Sampler.IPNDM)),
        ("sd-v1-inpainting", an_inpainting(sampler=Sampler.IPNDM, strength=0.5)),
        ("sd-v2-depth", a_depth_to_image(sampler=Sampler.IPNDM)),
    ],
)
def test_a_sampler_that_only_starts_from_noise_is_refused_a_picture(
    replica: Replica, name: str, spec: AnySpec
) -> None:
    inputs = Inputs(image=a_picture(), mask=a_mask(), depth=a_depth())
    with pytest.raises(InvalidSpec, match="choose another") as caught:
        prepare(replica(name).denoiser, spec, inputs=inputs)
    assert caught.value.field == "sampler"


def test_pictures_of_all_noise_levels_share_a_call(replica: Replica) -> None:
    checkpoint = replica("sd-x4-upscaler")
    guests = [
        Guest(
            an_upscale(noise_level=level, seed=level, guidance_scale=scale),
            joins=number,
            inputs=Inputs(image=a_picture(32, 32)),
        )
        for number, (level, scale) in enumerate([(0, 4.0), (20, 1.0), (350, 9.0)])
    ]
    states = draw_together(checkpoint.denoiser, guests)
    assert len({state.bucket for state in states}) == 1
    for guest, state in zip(guests, states, strict=True):
        theirs = oracle.latents(checkpoint.folder, guest.drawn, guest.inputs)
        assert apart(state.latents, theirs) < TOLERANCE


def test_a_picture_decoded_in_tiles_is_nearly_the_one_decoded_whole(one_core: None) -> None:
    # A trained autoencoder and what it knows: to random weights each tile is another picture.
    vae = AutoencoderKL.from_pretrained(locate(load_catalog()["demo"]) / "vae")
    y, x = torch.meshgrid(torch.arange(192), torch.arange(256), indexing="ij")
    circle = (y - 96) ** 2 + (x - 128) ** 2 < 60**2
    red, blue = torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]]).view(2, 3, 1, 1)
    picture = torch.where(circle, red, blue)[None]
    with torch.inference_mode():
        latents = Autoencoder(vae).encode(picture, torch.Generator().manual_seed(1))
        latents_in_all = latents.shape[-1] * latents.shape[-2]
        whole = Autoencoder(vae).decode(latents)
        tiled = Autoencoder(vae, tile_above=latents_in_all - 1).decode(latents)
        fits = Autoencoder(vae, tile_above=latents_in_all).decode(latents)
    assert whole.shape == tiled.shape == (1, 3, 192, 256)
    assert torch.equal(fits, whole)
    assert not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.01


def test_a_large_picture_is_encoded_in_tiles_too(one_core: None) -> None:
    vae = AutoencoderKL.from_pretrained(locate(load_catalog()["demo"]) / "vae")
    sent = torch.randn(1, 3, 192, 256, generator=torch.Generator().manual_seed(1))
    whole, tiled = (
        Autoencoder(vae, above).encode(sent, torch.Generator().manual_seed(2))
        for above in (10**6, 0)
    )
    vae.enable_tiling()
    theirs = vae.encode(sent).latent_dist.sample(torch.Generator().manual_seed(2))
    assert torch.equal(tiled, theirs * vae.config.scaling_factor)
    assert not torch.equal(tiled, whole)


def test_latents_of_less_precision_are_scaled_in_that_of_the_autoencoder(replica: Replica) -> None:
    autoencoder = Autoencoder(oracle.pipeline(replica("sd-v1").folder)[0].vae)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).half()
    with torch.inference_mode():
        assert torch.equal(autoencoder.decode(latents), autoencoder.decode(latents.float()))


@pytest.mark.parametrize(("name", "spec", "inputs"), CASES)
def test_a_unet_call_brings_nothing_to_the_device(
    replica: Replica,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    spec: AnySpec,
    inputs: Inputs,
) -> None:
    denoiser = replica(name).denoiser
    state = prepare(denoiser, spec, inputs=inputs)
    for constructor in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.delattr(torch, constructor)
    denoiser.predict([state])


def test_a_large_picture_does_not_change_how_its_neighbours_are_encoded(replica: Replica) -> None:
    vae = oracle.pipeline(replica("sd-v1").folder)[0].vae
    autoencoder = Autoencoder(vae, tile_above=100)
    sent = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = autoencoder.encode(sent, torch.Generator().manual_seed(2))
        autoencoder.decode(torch.randn(1, 4, 16, 16))
        after = autoencoder.encode(sent, torch.Generator().manual_seed(2))
    assert torch.equal(before, after)
