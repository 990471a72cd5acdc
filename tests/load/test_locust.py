"""The locustfile, run as people run it, before workers that draw without a model."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks.load import House
from tests.load import __main__ as make_load

HERE = Path(__file__).parent
PATIENT = ("--max-accept", "60", "--max-eta", "1000", "--max-broken", "100")
"""Of a busy machine nothing is expected but that all ends as it should."""

needs_locust = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="locust is not installed: pip install -c constraints.txt -e '.[load]'",
)
pytestmark = pytest.mark.xdist_group("load")


def run(url: str, *options: str) -> tuple[int, str]:
    """Its exit status, and what it says."""
    words = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--host", url]
    words += ["--headless", "--only-summary", "--users", "4", "--run-time", "4s", *options]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_locust
@pytest.mark.parametrize("shape", ["ramp", "spike", "soak"])
def test_a_run_in_which_all_is_well_succeeds(place: House, shape: str) -> None:
    status, said = run(place.url, "--shape", shape, *PATIENT)
    assert "All thresholds met" in said, said
    assert status == 0, said


@needs_locust
def test_a_threshold_that_is_missed_fails_the_run_and_is_named(place: House) -> None:
    status, said = run(place.url, "--shape", "soak", *PATIENT, "--max-failures", "-1")
    assert "MISSED: visits that did not end as they should: 0 %, at most -1 % is allowed" in said
    assert status == 1, said


@needs_locust
def test_users_of_one_door_and_one_kind_can_be_chosen(place: House) -> None:
    status, said = run(place.url, "OpenAI", "--tags", "short", "--shape", "soak", *PATIENT)
    rows = [line.split()[:2] for line in said.splitlines() if line.startswith(("nat", "op", "a1"))]
    assert {tuple(row) for row in rows} == {("openai", "short")}, said
    assert status == 0, said


@needs_locust
def test_a_server_that_is_not_there_is_said_in_a_line() -> None:
    status, said = run("http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be loaded:" in said
    assert "Traceback" not in said
    assert status == 2, said


@needs_locust
def test_several_processes_are_refused_in_words(place: House) -> None:
    status, said = run(place.url, "--master")
    assert "runs in one process" in said
    assert status == 2, said


@needs_locust
@pytest.mark.parametrize(("most", "status"), [("0", 0), ("-1", 1)])
def test_make_load_ends_as_the_run_does(
    place: House, monkeypatch: pytest.MonkeyPatch, most: str, status: int
) -> None:
    for name in (*make_load.SEVERE, "DARKROOM_KEY"):
        monkeypatch.setenv(name, "1")  # so that it is gone afterwards, whatever comes
    monkeypatch.setattr(make_load, "private_server", lambda *_: nullcontext(place.url))
    short = ("--seconds", "2", "--users", "2", "--max-failures", most)
    assert make_load.main([*short, *PATIENT]) == status
    assert "DARKROOM_KEY" not in os.environ


def test_only_the_locustfile_knows_locust() -> None:
    """Its import patches sockets and threads, of whatever process imports it."""
    for file in HERE.glob("*.py"):
        known = {
            alias.name.split(".")[0] if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        patched = {name for name in known if name.split(".")[0] in ("locust", "gevent")}
        assert bool(patched) == (file.name == "locustfile.py"), file


def test_without_locust_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_load.importlib.util, "find_spec", lambda name: None)
    assert make_load.main([]) == 2
    assert "pip install" in capsys.readouterr().err


def test_options_that_are_locusts_go_to_locust() -> None:
    chosen, more = make_load.asked_for(["--users", "9", "--max-eta", "3", "Native"])
    words = make_load.command("http://here", chosen, more)
    assert words[-3:] == ["--max-eta", "3", "Native"]
    assert words[words.index("--users") + 1] == "9"
    assert words[words.index("--run-time") + 1] == "120s"
