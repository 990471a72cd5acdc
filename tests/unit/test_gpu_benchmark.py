"""The benchmark for GPUs, as far as it can be held to anything without one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("diffusers")

import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import bars, carry, crowd, peers
from benchmarks.gpu.budget import Budget, OutOfTime
from benchmarks.gpu.ceiling import flops
from benchmarks.gpu.checkpoints import NAMES, RandomWeights, real, tiny
from benchmarks.gpu.device import covered
from benchmarks.gpu.report import SMOKE, Report
from benchmarks.gpu.run import Lengths, Run
from benchmarks.gpu.subject import Subject, request
from server.models.loading import load
from tests.builders import a_spec

CPU = torch.device("cpu")


@pytest.mark.timeout(600)
def test_the_whole_command_can_be_tried_out_without_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "new" / "figures.json"
    options = ["--device", "cpu", "--tiny", "--models", "sdxl", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *options],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith("    ")]
    assert all(line.startswith(f"[{SMOKE}]") for line in said)
    document = json.loads(out.read_text())
    assert document["note"] == SMOKE
    assert {figure["bar"] for figure in document["figures"]} == {""}
    names = {figure["name"] for figure in document["figures"]}
    measured = bars.BARS.keys() - {bars.END_TO_END.format(30)}  # it takes fewer steps
    assert {f"sdxl: {what}" for what in measured} <= names
    assert len(document["curves"]) == 2
    assert all("CUDA" in each for each in document["not_measured"])


def test_without_cuda_it_says_so_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "figures.json"
    assert command.main(["--out", str(out)]) == 3
    assert "finds no CUDA device here, so nothing was measured" in capsys.readouterr().err
    assert command.main(["--device", "cpu", "--out", str(out)]) == 3
    assert "are measured on CUDA alone" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("options", [["--models", "sd-v3"], ["--parts", "alone,toast"]])
def test_a_model_or_part_that_is_none_is_an_error(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        command.asked_for(options)
    assert error.value.code == 2
    assert "is none of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "tera_a_row"), [("sd-v1", 0.803), ("sd-v2-1", 2.149), ("sdxl", 6.761)]
)
def test_operations_are_counted_with_those_of_attention(name: str, tera_a_row: float) -> None:
    counted = flops(real(name))
    assert counted.unet / 1e12 == pytest.approx(tera_a_row, abs=5e-4)
    assert counted.picture(30) == 60 * counted.unet + counted.decode + 2 * counted.encode


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_are_loaded_as_any_others(name: str, tmp_path: Path) -> None:
    model = tiny(name, tmp_path)
    first, second = RandomWeights(model.configs, CPU), RandomWeights(model.configs, CPU)
    denoiser = load(model.card, "cpu", "bfloat16", source=first)
    load(model.card, "cpu", "bfloat16", source=second)
    assert denoiser.dtype is torch.bfloat16
    for part in ("unet", "vae", "text_encoder"):
        both = (source.made[part].parameters() for source in (first, second))
        weights = list(zip(*both, strict=True))
        assert all(torch.equal(one, other) for one, other in weights)
        assert all(one.count_nonzero() for one, _ in weights if one.ndim > 1)
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("name", ["sd-v2-1", "sdxl"])
def test_a_peer_draws_with_the_engines_own_models(name: str, tmp_path: Path) -> None:
    model = tiny(name, tmp_path)
    source = RandomWeights(model.configs, CPU)
    denoiser = load(model.card, "cpu", "float32", source=source)
    subject = Subject(model, source, denoiser, speed=None, seconds_to_ready=0)  # type: ignore[arg-type]
    plain, compiled = peers.Pipeline(subject), peers.Pipeline(subject, {"disable": True})
    specs = [request(model, num_inference_steps=2) for _ in range(2)]
    assert plain._call.unet is source.made["unet"]
    assert all(each.seconds(specs) > 0 for each in (plain, compiled))
    assert compiled._call.vae is not source.made["vae"]
    assert "decode" not in vars(source.made["vae"])


def test_what_does_not_fit_the_budget_is_not_begun_and_said() -> None:
    run, begun = a_run(Budget(100, began=0, clock=lambda: 70)), list[str]()
    parts = [
        command.Part("short", 20, lambda run, model: begun.append(f"short {model}")),
        command.Part("long", 40, lambda run, model: begun.append(f"long {model}")),
    ]
    work = [(part, model) for part in parts for model in ("a", "b")]
    assert all(command._measured(run, *each) for each in work)
    assert begun == ["short a", "short b"]
    assert run.report.not_measured == [
        "a: long: it takes 40 s or more, 30 s are left",
        "b: long: it takes 40 s or more, 30 s are left",
    ]


def test_what_outlasts_the_budget_is_cut_off_and_the_rest_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = a_run(Budget(0.01, began=0, clock=lambda: 0), models=("a", "b"))
    endless = command.Part("endless", 0, lambda run, model: threading.Event().wait())  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(command, "PARTS", [endless])
    assert command.measured(run, ["endless"])
    assert run.report.not_measured == ["a: endless: cut off", "b: endless: no time left"]


def test_nothing_is_cut_off_within_an_endless_budget() -> None:
    with Budget().cutting():
        assert Budget().left == math.inf
    with pytest.raises(OutOfTime), Budget(0).cutting():
        threading.Event().wait()


def test_what_fails_leaves_the_others_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []

    def failing(run: Run, model: str) -> None:
        raise RuntimeError("a kernel is missing")

    broken = command.Part("broken", 0, failing)
    sound = command.Part("sound", 0, lambda run, model: begun.append(model))
    monkeypatch.setattr(command, "PARTS", [broken, sound])
    run = a_run(Budget(), models=("a",))
    assert not command.measured(run, ["broken", "sound"])
    assert begun == ["a"]
    assert run.report.not_measured == [
        "a: broken: failed: RuntimeError('a kernel is missing')",
    ]
    assert "a kernel is missing" in capsys.readouterr().err


def test_rounds_are_fewer_where_there_is_no_time_for_all() -> None:
    now = 0.0

    def ten_seconds() -> float:
        nonlocal now
        now += 10
        return now

    run = a_run(Budget(35, began=0, clock=lambda: now))
    assert run.in_turn({"only": ten_seconds}) == {"only": [20.0, 30.0]}


def test_a_figure_stands_beside_its_bar_but_not_in_a_smoke(tmp_path: Path) -> None:
    lines: list[str] = []
    report = Report(tmp_path / "out.json", tell=lines.append)
    report.add(bars.SATURATED, "sdxl", 1.0, "/s")
    report.add("something else", "sdxl", 1.0, "/s")
    report.leave_out("sdxl: peers", "no time left")
    report.close()
    assert "at least 1.12 /s  MISSED" in lines[0]
    assert lines[1].endswith(" 1 /s")
    assert lines[-3:] == [
        "0 of 1 bars met",
        "MISSED: sdxl: saturated",
        "NOT MEASURED: sdxl: peers: no time left",
    ]
    assert json.loads((tmp_path / "out.json").read_text())["not_measured"]
    smoke = Report(smoke=True, tell=lines.append)
    smoke.add(bars.SATURATED, "sdxl", 1.0, "/s")
    assert lines[-1].startswith(f"[{SMOKE}] ")
    assert "MISSED" not in lines[-1]


@pytest.mark.parametrize(
    ("most", "tried"),
    [
        (2.0, [0.9, 0.95, 1.0]),
        (0.95, [0.9, 0.95, 1.0]),
        (0.9, [0.9, 0.95]),
        (0.75, [0.9, 0.8, 0.7]),
        (0.0, [0.9, 0.8, 0.7, 0.5]),
    ],
)
def test_higher_rates_are_tried_until_one_is_not_held_and_lower_until_one_is(
    most: float, tried: list[float]
) -> None:
    held: list[float] = []
    loads = []
    for share in crowd._loads(held):
        loads.append(share)
        if share <= most:
            held.append(share)
    assert loads == tried


def test_p99_is_one_of_those_that_were_measured() -> None:
    assert crowd._p99([float(n) for n in range(1, 201)]) == 198
    assert crowd._p99([3.0, 1.0]) == 3


def test_the_time_in_which_a_device_did_anything_counts_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4


def test_a_request_batch_agrees_in_what_a_call_fixes() -> None:
    specs = [a_spec(seed=seed, num_inference_steps=10 + seed % 2) for seed in range(40)]
    assert [len(group) for group in peers.alike(specs)] == [16, 4, 16, 4]


def test_what_is_there_already_and_what_comes_with_torch_is_not_carried() -> None:
    distributions = {
        "numpy": ["numpy"],
        "PIL": ["pillow"],
        "torch": ["torch"],
        "pydantic_core": ["pydantic_core"],
        "server": ["darkroom"],
    }
    there = carry.names_in("Pillow==11.0\n# a remark\n")
    modules = ["numpy.linalg", "PIL.Image", "torch.nn", "pydantic_core", "server", "os"]
    lines = carry.needed(modules, distributions, there)
    assert [line.partition("==")[0] for line in lines] == ["numpy", "pydantic-core"]


def a_run(budget: Budget, models: tuple[str, ...] = ()) -> Run:
    """One that has nothing to load."""
    lengths = Lengths(5, (2, 3, 4), 2, 2, saturated_seconds=1, arrival_seconds=1)
    known = {name: SimpleNamespace(name=name) for name in models}
    return Run(CPU, "float32", known, lengths, budget, Report(tell=lambda line: None))  # type: ignore[arg-type]
