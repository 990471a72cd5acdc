"""A UNet whose blocks go through torch.compile: the same pictures, with a LoRA too, and nothing is
compiled once it has learned."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from diffusers.models.resnet import ResnetBlock2D
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from server.errors import CheckpointError, OutOfMemory
from server.models import compiled
from server.models.adapters import Adapters
from server.models.compiled import Compiled
from server.models.diffusion import LatentDiffusion
from server.models.families import conditioner
from server.models.loading import load, load_parts
from server.spec import Lora, Sampler
from server.workers import compiling
from server.workers.compiling import Compiling
from tests import builders
from tests.models import loras, oracle, tiny
from tests.models.conftest import Checkpoint
from tests.models.drawing import Guest, draw, draw_together, prepare

a_spec = partial(builders.a_spec, width=64, height=64, num_inference_steps=3)
pytestmark = pytest.mark.timeout(600)
ROWS = 34
"""That are drawn together at most."""


@dataclass
class Compiler:
    """In the place of inductor: runs what it is given as it is, and counts."""

    compiled: int = 0
    runs: int = 0
    fault: Exception | None = None
    full: Exception | None = None

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        if self.fault is not None:
            raise self.fault
        self.compiled += 1

        def run(*given: Any) -> Any:
            if self.full is not None:
                raise self.full
            self.runs += 1
            return graph.forward(*given)

        return run


@dataclass
class Quick:
    """A checkpoint with compiled blocks, that has learned."""

    folder: Path
    denoiser: LatentDiffusion
    compiler: Compiler
    blocks: Compiled
    models: Path


def quick(folder: Path, models: Path, compiler: Any) -> Quick:
    parts = load_parts(tiny.card(folder), "cpu")
    blocks = Compiled(parts.unet, compiler)
    parts = replace(parts, compiled=blocks)
    reads = conditioner(parts, "sd", models, False)
    denoiser = LatentDiffusion(parts, reads, Adapters(parts, models))
    return Quick(folder, denoiser, compiler, blocks, models)


def learn(made: Quick, record: Path) -> None:
    Compiling(made.denoiser, made.blocks, tiny.card(made.folder), ROWS, record).run()


@pytest.fixture(scope="module")
def learned(v1: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quick]:
    models = tmp_path_factory.mktemp("models")
    loras.write(models / "Lora" / "style.safetensors", v1.folder)
    torch.compiler.reset()
    made = quick(v1.folder, models, Compiler())
    with pytest.MonkeyPatch.context() as patch:
        # The others are for convolutions on a CPU, and take as long again.
        patch.setattr(compiling, "MEETINGS", compiling.MEETINGS[:2])
        learn(made, models / "seconds")
    yield made
    torch.compiler.reset()


@pytest.mark.parametrize("sampler", [Sampler.EULER, Sampler.DPMPP_2M])
def test_pictures_are_those_of_diffusers_alone_and_in_company(
    learned: Quick, sampler: Sampler
) -> None:
    spec = a_spec(sampler=sampler)
    theirs = oracle.latents(learned.folder, spec)
    others = [Guest(a_spec(seed=9 + n, guidance_scale=(1.0, 4.0)[n % 2]), n % 3) for n in range(5)]
    alone, before = draw(learned.denoiser, spec).latents, learned.compiler.runs
    together = draw_together(learned.denoiser, [Guest(spec, 0), *others])[0].latents
    assert learned.compiler.runs > before
    for ours in (alone, together):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance_scale": 1.0},
        {"width": 128},
        {"width": 48, "height": 112},
        {"guidance_scale": 1.0, "height": 128},
        {"prompt": "a very long prompt of many words " * 30},
        {"guidance_scale": 1.0, "prompt": "a very long prompt of many words " * 30},
    ],
)
def test_what_was_learned_serves_other_sizes_rows_and_prompts(
    learned: Quick, changes: dict[str, Any]
) -> None:
    compiled, runs = learned.compiler.compiled, learned.compiler.runs
    counts = (1, 2, 7, 17)
    for tickets in counts:
        states = [prepare(learned.denoiser, a_spec(seed=n, **changes)) for n in range(tickets)]
        learned.denoiser.predict(states)
    assert learned.compiler.compiled == compiled
    kinds = [type(each).__name__ for each in learned.denoiser._unet.modules()]
    attend = kinds.count("BasicTransformerBlock")
    assert learned.compiler.runs - runs >= len(counts) * attend


def test_what_was_not_learned_is_computed_as_ever(learned: Quick) -> None:
    """Prompts of several lengths together come with a mask, which no block has met."""
    long = a_spec(prompt="a very long prompt of many words " * 30, seed=3)
    compiled = learned.compiler.compiled
    mine, other = draw_together(learned.denoiser, [Guest(a_spec(), 0), Guest(long, 0)])
    for ours, spec in ((mine, a_spec()), (other, long)):
        theirs = draw(learned.denoiser, spec).latents
        assert float((ours.latents - theirs).abs().max() / theirs.abs().max()) < 1e-4
    assert learned.compiler.compiled == compiled


def test_a_lora_changes_what_it_would_change_uncompiled_and_leaves_no_trace(
    learned: Quick, v1: Checkpoint
) -> None:
    worn = a_spec(loras=(Lora(name="style", scale=0.8),))
    before, compiled = draw(learned.denoiser, a_spec()).latents, learned.compiler.compiled
    ours = draw(learned.denoiser, worn).latents
    assert torch.equal(draw(learned.denoiser, a_spec()).latents, before)
    plain = load(tiny.card(v1.folder), "cpu", models_dir=learned.models)
    theirs = draw(plain, worn).latents
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4
    assert float((ours - before).abs().max()) > 1e-2
    assert learned.compiler.compiled == compiled


def test_a_compiler_that_fails_costs_speed_and_no_picture(
    v1: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.compiler.reset()
    made = quick(v1.folder, tmp_path, Compiler(fault=RuntimeError("no such kernel\nat all")))
    with caplog.at_level(logging.WARNING):
        learn(made, tmp_path / "seconds")
    told = [each.getMessage() for each in caplog.records if each.name == "darkroom.models"]
    assert len(told) == 1
    assert "nothing is compiled" in told[0]
    assert "no such kernel" in told[0]
    spec = a_spec()
    assert torch.equal(draw(made.denoiser, spec).latents, draw(v1.denoiser, spec).latents)


def test_a_call_that_does_not_fit_is_no_fault_of_the_compiler(
    v1: Checkpoint, tmp_path: Path
) -> None:
    torch.compiler.reset()
    made = quick(v1.folder, tmp_path, Compiler(full=torch.OutOfMemoryError("full")))
    states = [prepare(made.denoiser, a_spec())]
    with made.blocks.learn(), pytest.raises(OutOfMemory):
        made.denoiser.predict(states)
    assert not made.blocks.given_up


def test_where_nothing_can_be_compiled_a_worker_says_so_at_its_start(
    v1: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nin all these places")

    monkeypatch.setattr(torch, "compile", lacking)
    monkeypatch.setenv(compiled.CACHE, str(tmp_path))
    with pytest.raises(CheckpointError) as refused:
        load(tiny.card(v1.folder), "cpu", compiled_dir=tmp_path)
    assert "DARKROOM_COMPILE = blocks needs a C++ compiler" in refused.value.message
    assert "No working C++ compiler found" in refused.value.message
    assert "places" not in refused.value.message


def test_what_is_compiled_is_kept_here_unless_the_operator_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "kept"
    monkeypatch.setenv(compiled.CACHE, default_cache_dir())  # as torch does
    compiled.keep_compiled(folder)
    assert os.environ[compiled.CACHE] == str(folder)
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setenv(compiled.CACHE, "/elsewhere")
    compiled.keep_compiled(tmp_path / "other")
    assert os.environ[compiled.CACHE] == "/elsewhere"


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(compiled.CACHE, default_cache_dir())
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="what is compiled cannot be kept"):
        compiled.keep_compiled(tmp_path / "file")


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_the_real_compiler_computes_the_same(
    one_core: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config, "cpp_cache_precompile_headers", False)
    torch.compiler.reset()
    torch.manual_seed(0)
    made = ResnetBlock2D(in_channels=16, temb_channels=32, groups=8).requires_grad_(False)
    plain = copy.deepcopy(made)
    blocks = Compiled(torch.nn.ModuleList([made]))
    with torch.inference_mode():
        with blocks.learn():
            made(*_told(5))
        for rows in (2, 7):
            assert torch.allclose(made(*_told(rows)), plain(*_told(rows)), atol=1e-5)
    assert not blocks.given_up
    assert list(tmp_path.rglob("*.so"))
    torch.compiler.reset()


def _told(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    sample = torch.randn(rows, 16, 8, 8, generator=generator)
    return sample, torch.randn(rows, 32, generator=generator)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_draws_the_same_compiled_and_recorded(
    v1: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(compiled.CACHE, default_cache_dir())
    card = tiny.card(v1.folder)
    plain = load(card, "cuda:0", "float32")
    for graphs in (False, True):
        torch.compiler.reset()
        fast = load(card, "cuda:0", "float32", compiled_dir=tmp_path, cuda_graphs=graphs)
        assert fast.compiled is not None
        Compiling(fast, fast.compiled, card, ROWS, tmp_path / "seconds").run()
        guests = [Guest(a_spec(seed=n, guidance_scale=(1.0, 4.0)[n % 2]), n) for n in range(3)]
        for mine, theirs in zip(
            draw_together(fast, guests), draw_together(plain, guests), strict=True
        ):
            apart = (mine.latents - theirs.latents).abs().max() / theirs.latents.abs().max()
            assert float(apart) < 1e-3  # convolutions of a GPU are rounded to TF32
        assert not fast.compiled.given_up
    torch.compiler.reset()
