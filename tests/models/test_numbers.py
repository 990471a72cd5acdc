"""What is no picture is recognised, mended where float32 mends it, and nobody's but its own."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from server.errors import NotFinite, OutOfMemory
from server.models.autoencoder import Autoencoder
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.models.pictures import to_pictures
from server.models.probe import EVERY, Probe
from server.models.state import State
from server.stages import Handover, Stage
from server.workers.engine import Engine, Ticket
from tests import builders
from tests.models import tiny
from tests.models.conftest import Checkpoint
from tests.models.drawing import apart, draw, prepare

a_spec = partial(builders.a_spec, width=64, height=64, num_inference_steps=7)
NAN, INFINITY = float("nan"), float("inf")


def sickened(
    unet: Any, monkeypatch: pytest.MonkeyPatch, at: int, bad: float = NAN
) -> pytest.MonkeyPatch:
    """From the UNet's call `at` on, the first ticket of a batch gets a number that is none."""
    forward, calls = unet.forward, iter(range(1000))

    def poisoned(sample: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        noise = forward(sample, *args, **kwargs)[0].clone()
        if next(calls) == at:
            noise[0, 0, 0, 0] = bad
        return (noise,)

    monkeypatch.setattr(unet, "forward", poisoned)
    return monkeypatch


def a_ticket(denoiser: LatentDiffusion, seed: int) -> Ticket:
    return Ticket(str(seed), 0, prepare(denoiser, a_spec(seed=seed)), 0, float("inf"))


def drawn(engine: Engine, leaves_after: int | None = None) -> dict[str, Any]:
    """All that comes out, by ticket. The first ticket is dropped after so many steps."""
    outcomes, turn = {}, 0
    while engine.busy:
        turn += 1
        outcomes |= {o.ticket.id: o for o in engine.step().outcomes}
        if turn == leaves_after:
            engine.drop([t for t in engine._tickets if t.id == "1"])
    return outcomes


@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_latents_that_are_no_numbers_fail_their_ticket_soon_and_alone(
    v1: Checkpoint, monkeypatch: pytest.MonkeyPatch, at: int, bad: float
) -> None:
    tickets = [a_ticket(v1.denoiser, seed) for seed in (1, 2)]
    engine = Engine(v1.denoiser, max_step_pixels=10**9)
    for ticket in tickets:
        engine.admit(ticket)
    with sickened(v1.denoiser._unet, monkeypatch, at, bad).context():
        outcomes = drawn(engine)
    assert isinstance(outcomes["1"].error, NotFinite)
    assert "guidance_scale" in outcomes["1"].error.message
    assert at <= tickets[0].steps_done < at + EVERY
    assert outcomes["2"].error is None


@pytest.mark.parametrize("at", [0, 2, 6])
def test_their_neighbour_is_drawn_to_the_last_bit_as_if_they_were_well(
    v1: Checkpoint, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    def company(**how: Any) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
        engine = Engine(v1.denoiser, max_step_pixels=10**9)
        well = a_ticket(v1.denoiser, 2)
        engine.admit(a_ticket(v1.denoiser, 1))
        engine.admit(well)
        picture = drawn(engine, **how)["2"].picture
        return well.state.latents, picture.array()

    with monkeypatch.context() as patch:
        sickened(v1.denoiser._unet, patch, at)
        latents, pixels = company()
    calm_latents, calm_pixels = company(leaves_after=1 + EVERY * math.ceil(at / EVERY))
    assert torch.equal(latents, calm_latents)
    assert np.array_equal(pixels, calm_pixels)
    assert apart(latents, draw(v1.denoiser, a_spec(seed=2)).latents) < 1e-5


def test_what_goes_wrong_after_the_last_look_is_seen_at_the_end(
    v1: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for gives in (Handover.PICTURES, Handover.LATENTS):
        with monkeypatch.context() as patch:
            sickened(v1.denoiser._unet, patch, at=5)
            state = draw(v1.denoiser, Stage(spec=a_spec(num_inference_steps=6), gives=gives))
        [picture] = v1.denoiser.decode([state])
        with pytest.raises(NotFinite):
            picture.array()
        with pytest.raises(NotFinite, match="latents"):
            v1.denoiser.decode_again(state)


def test_a_look_does_not_wait_for_its_answer() -> None:
    class Busy:
        done = False

        def query(self) -> bool:
            return self.done

    probe, copied = Probe(torch.tensor([1.0, NAN])), Busy()
    assert probe.failed
    probe._copied = copied
    assert not probe.failed
    copied.done = True
    assert probe.failed
    assert not Probe(torch.full((1, 4, 8, 8), 65504, dtype=torch.float16)).failed


@pytest.fixture(scope="module")
def overflowing(v1: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    """In float16, its autoencoder overflows where SDXL's does, in what its blocks add up; and its
    config does not say so."""
    folder = shutil.copytree(v1.folder, tmp_path_factory.mktemp("overflowing") / "it")
    config: Path = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": False}))
    denoiser = load(tiny.card(folder), "cpu", "float16")
    with torch.no_grad():
        denoiser._vae._vae.decoder.conv_in.weight.mul_(2e5)
    return denoiser


def in_float32(denoiser: LatentDiffusion, state: State) -> torch.Tensor:
    """Its picture (height, width, 3) as diffusers' own upcasting has it."""
    config = denoiser._vae._vae.config
    vae = AutoencoderKL.from_config(config).eval()
    vae.load_state_dict(denoiser._vae._vae.state_dict())
    with torch.inference_mode():
        image = vae.decode(state.latents.float() / config.scaling_factor)[0][0]
    return (image / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).mul(255).round()


def test_a_picture_that_overflowed_is_mended_in_float32(overflowing: LatentDiffusion) -> None:
    state = draw(overflowing, a_spec(num_inference_steps=2))
    assert state.latents.isfinite().all()
    [picture] = overflowing.decode([state])
    with pytest.raises(NotFinite, match="autoencoder"):
        picture.array()
    again = overflowing.decode_again(state)
    assert again is not None
    assert not again.blank
    pixels = torch.from_numpy(again.array().astype(np.float32))
    assert (pixels - in_float32(overflowing, state)).abs().max() <= 1
    assert overflowing._vae._vae.dtype is torch.float16


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Autoencoders that fit the memory in tiles only; notes whether each call was in tiles."""
    calls: list[bool] = []
    decode: Callable[..., Any] = AutoencoderKL.decode

    def tight(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(self.use_tiling)
        if not self.use_tiling:
            torch.empty(2**60, dtype=torch.uint8)
        return decode(self, *args, **kwargs)

    monkeypatch.setattr(AutoencoderKL, "decode", tight)
    return calls


def test_what_float32_has_no_room_for_is_decoded_in_tiles(
    overflowing: LatentDiffusion, cramped: list[bool]
) -> None:
    state = prepare(overflowing, a_spec(width=128, height=128))
    again = overflowing.decode_again(state)
    assert again is not None
    assert again.array().shape == (128, 128, 3)
    assert cramped == [False, True]


def test_what_does_not_fit_in_tiles_either_is_out_of_memory(
    overflowing: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = prepare(overflowing, a_spec())

    def full(self: Any, *args: Any, **kwargs: Any) -> Any:
        return torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(AutoencoderKL, "decode", full)
    with pytest.raises(OutOfMemory):
        overflowing.decode_again(state)


def test_an_autoencoder_in_float32_has_nothing_better_to_say(v1: Checkpoint) -> None:
    assert v1.denoiser.decode_again(draw(v1.denoiser, a_spec())) is None


def a_grey(level: float) -> torch.Tensor:
    """Levels from 0 to 255 as an autoencoder gives them: (1, 3, 8, 8)."""
    return torch.full((1, 3, 8, 8), level) / 127.5 - 1


def _with_a_dot(image: torch.Tensor) -> torch.Tensor:
    image[0, 0, 3, 3] = 0.9
    return image


def _with_slope(image: torch.Tensor) -> torch.Tensor:
    return image + torch.linspace(0, 0.1, 8)


@pytest.mark.parametrize(
    ("image", "blank"),
    [
        (a_grey(0), True),
        (a_grey(127), True),
        (a_grey(255), True),
        (a_grey(300), True),
        (torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8), True),
        (_with_a_dot(a_grey(0)), False),
        (_with_a_dot(torch.full((1, 3, 64, 64), -1.0)), True),
        (_with_slope(a_grey(3)), False),
        (_with_slope(a_grey(127)), False),
    ],
)
def test_a_picture_of_one_colour_or_black_is_blank(image: torch.Tensor, blank: bool) -> None:
    other = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    first, second = to_pictures(torch.cat([image, other]), [None, None])
    assert (first.blank, second.blank) == (blank, False)


def test_it_is_blank_whatever_is_laid_over_it() -> None:
    [picture] = to_pictures(a_grey(0), [lambda drawn: drawn + np.arange(3, dtype=np.uint8)])
    assert picture.blank
    assert picture.array().max() == 2


def test_autoencoders_alone_tell_their_precision(one_core: None, v1: Checkpoint) -> None:
    vae = AutoencoderKL.from_pretrained(v1.folder / "vae", torch_dtype=torch.bfloat16)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.inference_mode():
        once, precisely = (
            Autoencoder(vae).decode(latents),
            Autoencoder(vae).decode_precisely(latents),
        )
    assert (once.dtype, precisely.dtype) == (torch.bfloat16, torch.float32)
    assert 0 < apart(once.float(), precisely) < 0.1
