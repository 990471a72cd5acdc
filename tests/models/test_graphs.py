"""UNet calls that are recorded and replayed: padded, kept within bounds, and nobody's picture
changes. What records is a double here, but for the test on a GPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from server.errors import DeviceLost
from server.models import graphs
from server.models.adapters import Adapters
from server.models.diffusion import LatentDiffusion
from server.models.families import conditioner
from server.models.graphs import COUNTS, Graphs, Replay, on_cuda, record_calls
from server.models.loading import load, load_parts
from server.spec import Lora, Sampler
from tests import builders
from tests.models import loras, oracle, tiny
from tests.models.conftest import Checkpoint
from tests.models.drawing import Guest, draw, draw_together

a_spec = partial(builders.a_spec, width=64, height=64, num_inference_steps=3)


@dataclass
class Recorder:
    """In the place of CUDA: a replay makes the call again, over the same memory."""

    calls: list[Callable[[], torch.Tensor]] = field(default_factory=list)
    replayed: int = 0
    nbytes: int = 1
    fault: Exception | None = None

    def __call__(self, call: Callable[[], torch.Tensor]) -> Replay:
        if self.fault is not None:
            raise self.fault
        self.calls.append(call)
        return _Replay(self, call, call(), self.nbytes)


@dataclass
class _Replay:
    recorder: Recorder
    call: Callable[[], torch.Tensor]
    made: torch.Tensor
    nbytes: int

    def __call__(self) -> torch.Tensor:
        self.recorder.replayed += 1
        self.made.copy_(self.call())
        return self.made


@dataclass
class Sums:
    """A UNet of one line. Rows do not see each other."""

    rows: list[int] = field(default_factory=list)

    def __call__(self, *, return_dict: bool, **told: Any) -> tuple[torch.Tensor]:
        self.rows.append(len(told["sample"]))
        more = told["added"]["sizes"].sum(1) if "added" in told else 0.0
        return (told["sample"] * 2 + (told["timestep"] + more)[:, None, None, None],)


def call_of(rows: int, side: int = 4, **more: Any) -> dict[str, Any]:
    sample = torch.arange(rows * side * side).float().view(rows, 1, side, side)
    return {"sample": sample, "timestep": torch.arange(rows).float(), "class_labels": None} | more


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 33, COUNTS[-1]])
def test_a_call_is_padded_replayed_and_cut_to_its_rows(rows: int) -> None:
    recorder, unet = Recorder(), Sums()
    recorded = Graphs(unet, recorder)
    for _ in range(2):
        told = call_of(rows)
        assert torch.equal(recorded(**told)[0], Sums()(return_dict=False, **told)[0])
    assert recorder.replayed == 2
    assert len(recorder.calls) == 1
    assert set(unet.rows) == {min(count for count in COUNTS if count >= rows)}


def test_row_counts_share_a_recording_and_each_has_its_own_result() -> None:
    recorder = Recorder()
    recorded = Graphs(Sums(), recorder)
    first = recorded(**call_of(7))[0]
    kept = first.clone()
    recorded(**call_of(8))
    assert torch.equal(first, kept)
    assert len(recorder.calls) == 1


def test_what_an_earlier_call_left_in_the_padding_is_nobodys_affair() -> None:
    recorded = Graphs(Sums(), Recorder())
    spoilt = call_of(4)
    spoilt["sample"] = torch.full_like(spoilt["sample"], torch.nan)
    recorded(**spoilt)
    told = call_of(3)
    assert torch.equal(recorded(**told)[0], Sums()(return_dict=False, **told)[0])


def test_other_sizes_tokens_and_conditions_are_other_recordings() -> None:
    recorder = Recorder()
    recorded = Graphs(Sums(), recorder)
    kinds = [
        call_of(2),
        call_of(2, side=8),
        call_of(2, encoder_hidden_states=torch.zeros(2, 77, 3)),
        call_of(2, encoder_hidden_states=torch.zeros(2, 154, 3)),
        call_of(2, encoder_hidden_states=torch.zeros(2, 77, 3, dtype=torch.float64)),
        call_of(2, added={"sizes": torch.ones(2, 6)}),
    ]
    for _ in range(2):
        for told in kinds:
            assert torch.equal(recorded(**told)[0], Sums()(return_dict=False, **told)[0])
    assert len(recorder.calls) == len(kinds)


def test_calls_too_large_for_it_to_matter_are_made_as_ever() -> None:
    recorder, unet = Recorder(), Sums()
    recorded = Graphs(unet, recorder)
    recorded(**call_of(COUNTS[-1] + 1))
    recorded(**call_of(2, side=512))
    assert unet.rows == [COUNTS[-1] + 1, 2]
    assert not recorder.calls


def test_as_many_are_kept_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    recorded = Graphs(Sums(), recorder)
    monkeypatch.setattr(recorded._kept, "_most", 2)
    for side in (2, 4, 6, 4):
        recorded(**call_of(2, side=side))
    assert len(recorded) == 2
    recorded(**call_of(2, side=2))
    assert len(recorder.calls) == 4
    heavy = Graphs(Sums(), Recorder(nbytes=graphs.MOST_BYTES))
    heavy(**call_of(2))
    heavy(**call_of(4))
    assert len(heavy) == 1


def test_what_is_forgotten_is_recorded_again() -> None:
    recorder = Recorder()
    recorded = Graphs(Sums(), recorder)
    recorded(**call_of(2))
    with recorded.forgotten():
        assert len(recorded) == 0
    recorded(**call_of(2))
    assert len(recorder.calls) == 2


def test_nothing_is_forgotten_while_it_is_recorded() -> None:
    """The allocator gives nothing back while a graph is recorded, on whatever thread."""
    begun, order = threading.Event(), list[str]()

    def forget() -> None:
        begun.set()
        with recorded.forgotten():
            order.append("forgotten")

    def capture(call: Callable[[], torch.Tensor]) -> Replay:
        other.start()
        begun.wait()
        other.join(0.05)
        order.append("recorded")
        return Recorder()(call)

    other = threading.Thread(target=forget)
    recorded = Graphs(Sums(), capture)
    recorded(**call_of(2))
    other.join()
    assert order == ["recorded", "forgotten"]


@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_what_cannot_be_recorded_is_told_once_and_called_as_ever(
    caplog: pytest.LogCaptureFixture, kind: type[RuntimeError]
) -> None:
    fault = kind("a stream is capturing\nat ...")
    fault.error_code = 900  # type: ignore[attr-defined]
    recorded = Graphs(Sums(), Recorder(fault=fault))
    with caplog.at_level(logging.WARNING):
        for rows in (2, 4):
            told = call_of(rows)
            assert torch.equal(recorded(**told)[0], Sums()(return_dict=False, **told)[0])
    assert [each.getMessage() for each in caplog.records] == [
        "no CUDA graphs, as one cannot be recorded: a stream is capturing"
    ]


def test_a_call_whose_recording_does_not_fit_is_made_by_itself_until_there_is_room() -> None:
    recorder, told = Recorder(), call_of(2)
    recorded = Graphs(Sums(), recorder)
    recorded(**call_of(4))
    recorder.fault = torch.OutOfMemoryError("full")
    for _ in range(2):
        assert torch.equal(recorded(**told)[0], Sums()(return_dict=False, **told)[0])
    assert recorder.replayed == 1
    recorder.fault = None
    with recorded.forgotten():
        assert len(recorded) == 0
    recorded(**told)
    assert recorder.replayed == 2


def test_a_device_that_is_lost_is_told_to_the_worker() -> None:
    fault = torch.AcceleratorError("an illegal memory access")
    fault.error_code = 700
    with pytest.raises(DeviceLost):
        Graphs(Sums(), Recorder(fault=fault))(**call_of(2))


@dataclass
class Recorded:
    """A checkpoint whose calls are recorded."""

    denoiser: LatentDiffusion
    recorder: Recorder
    graphs: Graphs
    models: Path


@pytest.fixture
def drawn(v1: Checkpoint, tmp_path: Path) -> Recorded:
    loras.write(tmp_path / "Lora" / "style.safetensors", v1.folder)
    parts, recorder = load_parts(tiny.card(v1.folder), "cpu"), Recorder()
    kept = Graphs(parts.unet, recorder)
    parts = replace(parts, graphs=kept)
    reads = conditioner(parts, "sd", tmp_path, False)
    denoiser = LatentDiffusion(parts, reads, Adapters(parts, tmp_path))
    return Recorded(denoiser, recorder, kept, tmp_path)


@pytest.mark.parametrize("sampler", [Sampler.EULER, Sampler.DPMPP_2M])
def test_pictures_are_those_of_diffusers_alone_and_in_company(
    drawn: Recorded, v1: Checkpoint, sampler: Sampler
) -> None:
    spec = a_spec(sampler=sampler)
    theirs = oracle.latents(v1.folder, spec)
    others = [Guest(a_spec(seed=9 + n, guidance_scale=(1.0, 4.0)[n % 2]), n % 3) for n in range(5)]
    alone = draw(drawn.denoiser, spec).latents
    together = draw_together(drawn.denoiser, [Guest(spec, 0), *others])[0].latents
    for ours in (alone, together):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4
    assert drawn.recorder.replayed >= 6


def test_prompts_of_several_lengths_share_a_recorded_call(drawn: Recorded, v1: Checkpoint) -> None:
    long = a_spec(prompt="a very long prompt of many words " * 30, seed=3)
    for ours, spec in zip(
        draw_together(drawn.denoiser, [Guest(a_spec(), 0), Guest(long, 0)]),
        (a_spec(), long),
        strict=True,
    ):
        theirs = oracle.latents(v1.folder, spec) if spec is not long else None
        theirs = draw(v1.denoiser, spec).latents if theirs is None else theirs
        assert float((ours.latents - theirs).abs().max() / theirs.abs().max()) < 1e-4


def test_a_call_with_a_lora_is_not_recorded(drawn: Recorded, v1: Checkpoint) -> None:
    worn = a_spec(loras=(Lora(name="style", scale=0.8),))
    ours = draw(drawn.denoiser, worn).latents
    assert not drawn.recorder.calls
    before = draw(drawn.denoiser, a_spec()).latents
    plain = load(tiny.card(v1.folder), "cpu", models_dir=drawn.models)
    assert torch.equal(ours, draw(plain, worn).latents)
    assert torch.equal(draw(drawn.denoiser, worn).latents, ours)
    assert torch.equal(draw(drawn.denoiser, a_spec()).latents, before)


def test_making_room_lets_go_of_them(drawn: Recorded) -> None:
    before = draw(drawn.denoiser, a_spec()).latents
    assert len(drawn.graphs)
    drawn.denoiser.make_room()
    assert not len(drawn.graphs)
    assert torch.equal(draw(drawn.denoiser, a_spec()).latents, before)


def test_on_a_cpu_nothing_is_recorded_and_it_says_so(
    v1: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        denoiser = load(tiny.card(v1.folder), "cpu", cuda_graphs=True)
    assert denoiser._graphs is None
    assert "DARKROOM_CUDA_GRAPHS is for GPUs; this is cpu" in caplog.messages


@pytest.fixture
def in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other row counts may be given other kernels, whose TF32 is rounded otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_replays_what_it_would_compute(v1: Checkpoint, in_full: None) -> None:
    device = torch.device("cuda:0")
    parts = load_parts(tiny.card(v1.folder), "cuda:0", "float32")
    kept, config = Graphs(parts.unet, on_cuda(device)), parts.unet.config
    with torch.inference_mode():
        for rows in (1, 3, 4, 3, 10):
            told = {
                "sample": torch.randn(rows, config.in_channels, 8, 8, device=device),
                "timestep": torch.full((rows,), 500.0, device=device),
                "encoder_hidden_states": torch.randn(rows, 77, tiny.WIDTH, device=device),
            }
            mine = kept(**told)[0]
            theirs = parts.unet(return_dict=False, **told)[0]
            assert float((mine - theirs).abs().max() / theirs.abs().max()) < 1e-4
    assert len(kept) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_pictures_of_a_gpu_are_the_same_recorded_and_not(v1: Checkpoint, in_full: None) -> None:
    card = tiny.card(v1.folder)
    plain, recorded = (load(card, "cuda:0", "float32", cuda_graphs=on) for on in (False, True))
    guests = [Guest(a_spec(seed=n), n % 2) for n in range(3)]
    for mine, theirs in zip(
        draw_together(recorded, guests), draw_together(plain, guests), strict=True
    ):
        apart = (mine.latents - theirs.latents).abs().max() / theirs.latents.abs().max()
        assert float(apart) < 1e-4
    recorded.make_room()
    assert record_calls(plain._unet) is not None
