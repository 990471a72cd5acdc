"""The benchmarks' own parts that need no measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")

from benchmarks import __main__ as bench
from benchmarks import drawing, step
from benchmarks.timing import at_least, at_most
from server.workers.simulated import SimulatedDenoiser
from tests.builders import a_spec


def test_all_parts_are_measured_unless_some_are_named() -> None:
    assert tuple(bench.asked_for([]).parts) == bench.PARTS
    assert bench.asked_for(["accept"]).parts == ["accept"]


def test_a_part_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        bench.asked_for(["drawings"])
    assert error.value.code == 2
    assert "'drawings' is none of drawing, accept, service" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["model name\t: A Fast One\n", "processor : 0\n", None])
def test_the_machine_is_described_with_and_without_cpuinfo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    monkeypatch.setattr(bench, "CPUINFO", tmp_path / "cpuinfo")
    if content is not None:
        bench.CPUINFO.write_text(content)
    assert " cores of " in bench.machine()
    assert ("A Fast One" in bench.machine()) == (content or "").startswith("model")


def test_a_missed_bar_is_said_and_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [at_most("slow", 2.0, 1.0), at_least("fast", 2.0, 1.0)]
    monkeypatch.setattr(bench, "measure", lambda parts, rounds: figures)
    monkeypatch.setattr(bench.sys, "argv", ["benchmarks"])
    bench.main()
    assert capsys.readouterr().out.endswith("1 of 2 bars met\nMISSED: slow\n")


def test_the_engines_batches_are_those_that_bare_calls_repeat() -> None:
    specs = [a_spec(seed=seed, num_inference_steps=2 + seed // 2) for seed in range(4)]
    subject = drawing.Subject("simulated", SimulatedDenoiser(), None, specs)  # type: ignore[arg-type]
    subject.draw_with_engine()
    assert subject.decodes == [2, 2]
    assert subject.rows == [8, 8, 4]


def test_how_far_pictures_are_from_the_exact_ones_is_told_in_grey_levels_and_decibels() -> None:
    exact = [np.full((2, 2, 3), 100, np.uint8)] * 2
    other = [exact[0], np.full((2, 2, 3), 90, np.uint8)]
    assert step.distance(exact, exact) == "mean 0.00, max 0 grey levels, PSNR inf dB"
    assert step.distance(other, exact) == "mean 5.00, max 10 grey levels, PSNR 31.1 dB"
