"""Checkpoints that draw in a few steps are sampled as diffusers samples them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

from server.catalog import Card, load_catalog
from server.models.diffusion import LatentDiffusion
from server.models.distilled import embedded
from server.models.loading import load
from server.models.memory import MemoryGauge
from server.pixels import Inputs
from server.spec import AnySpec, Lora
from server.workers.warmup import WarmUp
from tests import builders
from tests.models import loras, oracle, zoo
from tests.models.conftest import Checkpoint
from tests.models.drawing import Guest, a_mask, a_picture, apart, draw, draw_together, prepare
from tests.models.test_adapters import SIZES

TOLERANCE = 1e-4
SMALL: dict[str, Any] = {"width": 64, "height": 64}
INPUTS = Inputs(image=a_picture(), mask=a_mask())
CARDS = load_catalog()

Replica = Callable[[str], Checkpoint]


def a_spec(folder: Path, make: Callable[..., AnySpec] = builders.a_spec, **changes: Any) -> AnySpec:
    sizes = {"sdxl": SIZES} if oracle.family(folder) == "sdxl" else {}
    return make(**SMALL | sizes | changes)


def trailing(folder: Path, at: Path) -> Path:
    """The checkpoint, with a scheduler config that spaces timesteps from the end: for diffusers."""
    shutil.copytree(folder, at)
    file = at / "scheduler" / "scheduler_config.json"
    spaced = json.loads(file.read_text()) | {"timestep_spacing": "trailing"}
    file.write_text(json.dumps(spaced))
    return at


def few_steps(name: str, folder: Path) -> LatentDiffusion:
    """As a card says it that extends an ordinary one: trailing timesteps."""
    return load(zoo.card(name, folder, sampler_config={"timestep_spacing": "trailing"}), "cpu")


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        *[("sd-v2-base", {"sampler": "euler", "num_inference_steps": n}) for n in (1, 2, 4)],
        *[("sdxl-base", {"sampler": "euler_a", "num_inference_steps": n}) for n in (1, 2, 4)],
        *[("sdxl-base", {"sampler": "euler", "num_inference_steps": n}) for n in (2, 4, 8)],
        *[("sd-v1", {"sampler": "ddim", "num_inference_steps": n}) for n in (2, 8)],
        *[("sdxl-base", {"sampler": "tcd", "num_inference_steps": 4, "eta": e}) for e in (0, 0.3)],
        ("sdxl-base", {"sampler": "tcd", "num_inference_steps": 1, "eta": 1.0}),
    ],
)
def test_few_steps_without_guidance_are_diffusers_own(
    replica: Replica, tmp_path: Path, name: str, drawn: dict[str, Any]
) -> None:
    folder = replica(name).folder
    spec = a_spec(folder, guidance_scale=0.0, **drawn)
    theirs = oracle.latents(trailing(folder, tmp_path / "theirs"), spec)
    denoiser = few_steps(name, folder)
    assert prepare(denoiser, spec).rows == 1
    assert apart(draw(denoiser, spec).latents, theirs) < TOLERANCE


@pytest.mark.parametrize("make", [builders.an_image_to_image, builders.an_inpainting])
def test_so_are_those_from_a_picture(replica: Replica, tmp_path: Path, make: Any) -> None:
    folder = replica("sdxl-base").folder
    changes = {"sampler": "euler_a", "num_inference_steps": 4, "guidance_scale": 0.0}
    spec = a_spec(folder, partial(make, strength=0.5), **changes)
    theirs = oracle.latents(trailing(folder, tmp_path / "theirs"), spec, INPUTS)
    ours = draw(few_steps("sdxl-base", folder), spec, inputs=INPUTS)
    assert apart(ours.latents, theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["sd-v1", "sdxl-base"])
@pytest.mark.parametrize(("steps", "guidance"), [(4, 1.0), (8, 2.0)])
def test_a_lora_of_a_consistency_model_is_sampled_as_diffusers_does(
    replica: Replica, tmp_path: Path, name: str, steps: int, guidance: float
) -> None:
    folder = replica(name).folder
    file = loras.write(tmp_path / "Lora" / "lcm.safetensors", folder)
    asked = partial(a_spec, folder, sampler="lcm", num_inference_steps=steps)
    with loras.wearing(folder, {file: 1.0}):
        theirs = oracle.latents(folder, asked(guidance_scale=guidance))
    denoiser = load(zoo.card(name, folder), "cpu", models_dir=tmp_path)
    spec = asked(guidance_scale=guidance, loras=(Lora(name="lcm", scale=1.0),))
    assert apart(draw(denoiser, spec).latents, theirs) < TOLERANCE


MAKERS = {
    "from noise": builders.a_spec,
    "from a picture": partial(builders.an_image_to_image, strength=0.6),
    "over a part": builders.an_inpainting,
}


@pytest.mark.parametrize("guidance", [0.0, 1.0, 8.5])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_unet_that_reads_the_guidance_scale_is_told_it_in_one_row(
    replica: Replica, kind: str, guidance: float
) -> None:
    made = replica("sd-lcm")
    changes = {"sampler": "lcm", "num_inference_steps": 4, "guidance_scale": guidance}
    spec = a_spec(made.folder, MAKERS[kind], **changes)
    theirs = oracle.latents(made.folder, spec, INPUTS)
    ours = draw(made.denoiser, spec, inputs=INPUTS)
    assert ours.rows == 1
    assert apart(ours.latents, theirs) < TOLERANCE


def test_it_draws_what_the_pipeline_made_for_it_draws(replica: Replica) -> None:
    made = replica("sd-lcm")
    spec = a_spec(made.folder, sampler="lcm", num_inference_steps=4, guidance_scale=8.5)
    pipe = DiffusionPipeline.from_pretrained(made.folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        spec.prompt,
        num_inference_steps=4,
        guidance_scale=8.5,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type="latent",
        **SMALL,
    ).images
    assert type(pipe).__name__ == "LatentConsistencyModelPipeline"
    assert apart(draw(made.denoiser, spec).latents, theirs) < TOLERANCE


def test_those_of_different_guidance_share_a_call(replica: Replica) -> None:
    made = replica("sd-lcm")
    asked = partial(a_spec, made.folder, sampler="lcm", num_inference_steps=4)
    specs = [asked(guidance_scale=scale, seed=seed) for seed, scale in enumerate((1.0, 4.0, 8.5))]
    together = draw_together(made.denoiser, [Guest(spec, joins=i) for i, spec in enumerate(specs)])
    assert len({state.bucket for state in together}) == 1
    alone = [draw(made.denoiser, spec).latents for spec in specs]
    for mine, expected in zip(together, alone, strict=True):
        assert apart(mine.latents, expected) < TOLERANCE
    assert apart(alone[0], draw(made.denoiser, asked(guidance_scale=8.5, seed=0)).latents) > 1e-2


def test_what_its_one_row_does_not_read_is_told(replica: Replica) -> None:
    made = replica("sd-lcm")
    asked = partial(a_spec, made.folder, sampler="lcm", num_inference_steps=2)
    vain = {"negative_prompt": "blue", "guidance_rescale": 0.7, "guidance_end": 0.5}
    state = prepare(made.denoiser, asked(guidance_scale=8.5, **vain))
    assert [warning.field for warning in state.warnings] == list(vain)
    plain = prepare(made.denoiser, asked(guidance_scale=8.5))
    assert plain.warnings == ()


def test_a_worker_that_warms_up_with_it_measures_one_row_for_a_guided_picture(
    replica: Replica,
) -> None:
    made = replica("sd-lcm")
    card = zoo.card("sd-lcm", made.folder)
    speed = WarmUp(made.denoiser, card, 4, MemoryGauge(made.denoiser.device)).run()
    assert speed.guided_rows == 1
    assert [rows for rows, _ in speed.curve] == [1, 2]


@pytest.mark.parametrize("width", [16, 17, 256])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 7.5, 11.3])
def test_a_guidance_scale_is_embedded_as_diffusers_does(width: int, scale: float) -> None:
    embed: Any = StableDiffusionPipeline.get_guidance_scale_embedding
    theirs = embed(None, torch.tensor([scale]), embedding_dim=width)
    assert torch.equal(embedded(scale, width), theirs)


@pytest.mark.parametrize("name", ["sd-turbo", "sdxl-turbo", "lcm-dreamshaper-v7"])
def test_the_shipped_cards_of_distilled_checkpoints_need_few_steps(name: str) -> None:
    card: Card = CARDS[name]
    assert card.defaults.num_inference_steps <= 4
    assert card.native_size in (512, 768)
    assert card.licence
