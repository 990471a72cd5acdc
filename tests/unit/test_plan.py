"""`darkroom plan`: the file, where curves come from, and what is told."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from server import planning
from server.api.system import QUEUE_EXAMPLE
from server.catalog import load_catalog
from server.cli import app
from server.errors import DarkroomError, UnknownCheckpoint
from server.fleet import report
from server.fleet.plan import Measured, PlanError, crews, read_plan
from server.fleet.search import find
from server.forecast import Speed

EXAMPLE = Path(__file__).parents[2] / "examples" / "plan.toml"
GOAL = "[goal]\np99 = 2.0\n"
TRAFFIC = '[[traffic]]\ncheckpoint = "demo"\nrate = 3.0\n'
CURVE = "[checkpoints.demo]\ncurve = [[2, 0.02], [4, 0.03], [8, 0.05], [16, 0.1]]\n"
FEW = "generations = 1000\n"
SPEED = Speed(native_pixels=128**2, curve=((2, 0.5),), full_rows=2)


@pytest.fixture
def plan(tmp_path: Path):
    """A plan of these parts."""

    def read(*parts: str):
        file = tmp_path / "plan.toml"
        file.write_text("".join(parts))
        return read_plan(file)

    return read


def test_what_is_left_out_is_as_the_card_says(plan):
    [crew] = crews(plan(GOAL, TRAFFIC, CURVE), load_catalog(), {}, capacity=5)
    [kind] = crew.kinds
    assert str(kind) == "128x128, 20 steps of dpmpp_2m"
    assert (kind.rate, crew.capacity, crew.speed.full_rows) == (3.0, 5, 8)


def test_what_is_said_of_traffic_counts(plan):
    more = 'width = 256\nnum_images = 2\nsampler = "heun"\nguidance_scale = 1.0\n'
    [crew] = crews(plan(GOAL, TRAFFIC, more, CURVE), load_catalog(), {}, 16)
    assert str(crew.kinds[0]) == "2 x 256x128, 20 steps of heun, unguided"
    assert crew.kinds[0].stage.expected_steps == 2 * 39


def test_what_a_worker_says_of_itself_can_be_written_into_a_plan(plan):
    known = {
        "smallest": (0.5, 0.01),
        "exponent": 1.1,
        "decode_seconds": 0.02,
        "decode_curve": ((4096, 0.01), (16384, 0.02)),
        "decode_pixels": 16384,
    }
    said = [f"{name} = {json.dumps(value)}\n" for name, value in known.items()]
    [crew] = crews(plan(GOAL, TRAFFIC, CURVE, *said), load_catalog(), {}, 16)
    assert {name: getattr(crew.speed, name) for name in known} == known


def test_traffic_of_one_checkpoint_goes_to_one_crew(plan):
    other = TRAFFIC.replace("demo", "sd-v1-5")
    measured = {"sd-v1-5": Measured(SPEED, 4)}
    found = crews(plan(GOAL, TRAFFIC, other, TRAFFIC, CURVE), load_catalog(), measured, 16)
    assert [(crew.checkpoint, len(crew.kinds)) for crew in found] == [("demo", 2), ("sd-v1-5", 1)]
    assert (found[1].speed, found[1].capacity, found[1].rate) == (SPEED, 4, 3.0)


def test_what_nobody_has_measured_is_said_with_what_to_do(plan):
    said = plan(GOAL, TRAFFIC)
    assert said.unmeasured == ("demo",)
    with pytest.raises(PlanError, match=r"give checkpoints\.demo\.curve .* or name a server"):
        crews(said, load_catalog(), {}, 16)


def test_a_checkpoint_that_is_in_no_catalog_is_an_error(plan):
    with pytest.raises(UnknownCheckpoint, match="'dreams'"):
        crews(plan(GOAL, TRAFFIC.replace("demo", "dreams")), load_catalog(), {}, 16)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (["[goal]\n", TRAFFIC], "goal: name p50, p95 or p99, in seconds"),
        (["[goal]\np98 = 1\n", TRAFFIC], "goal: p98: Extra inputs are not permitted"),
        ([GOAL], "traffic: Field required"),
        ([GOAL, TRAFFIC.replace("3.0", "0.0")], "traffic: 0: rate: Input should be greater than 0"),
        ([GOAL, TRAFFIC, CURVE.replace("[4,", "[1,")], "curve: rows rise, from 1 or more"),
        ([GOAL, TRAFFIC, CURVE.replace("0.02", "0.0")], "a step takes more than 0 seconds"),
        ([GOAL, TRAFFIC, CURVE.replace("demo", "sdxl-base")], "no traffic names .* 'sdxl-base'"),
        (["goal"], "cannot read the plan"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(plan, parts, said):
    with pytest.raises(PlanError, match=said):
        plan(*parts)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("width = 130", "multiple of 8"),
        ("width = 1000000", "width of 512 at most"),
        ("num_inference_steps = 1000000000", "num_inference_steps of"),
        ("num_images = 10000000", "num_images of 16 at most"),
    ],
)
def test_traffic_is_held_to_what_a_request_may_ask_for(plan, more, said):
    with pytest.raises(PlanError, match=said):
        crews(plan(GOAL, f"{TRAFFIC.rstrip()}\n{more}\n", CURVE), load_catalog(), {}, 16)


@pytest.mark.parametrize("rate", ["1e12", "true", '"1"', "nan"])
def test_a_rate_that_nobody_has_is_refused(plan, rate):
    with pytest.raises(PlanError, match="rate"):
        plan(GOAL, TRAFFIC.replace("3.0", rate), CURVE)


def test_a_fleet_that_takes_too_long_to_simulate_is_refused(plan):
    with pytest.raises(PlanError, match="at most 5,000 are simulated"):
        crews(plan(GOAL, TRAFFIC.replace("3.0", "90000.0"), CURVE), load_catalog(), {}, 16)


def test_the_slowest_worker_of_a_server_is_planned_with():
    fast, slow = dict(QUEUE_EXAMPLE["workers"][0]), dict(QUEUE_EXAMPLE["workers"][0])
    slow["speed"] = fast["speed"] | {"drift": 1.2}
    found = planning._slowest([fast, slow, fast | {"speed": None}])
    assert found == Measured(Speed.model_validate(slow["speed"]), fast["capacity"])
    assert planning._slowest([]) is None


def test_a_running_server_is_asked_for_the_speed_of_its_workers(monkeypatch: pytest.MonkeyPatch):
    idle = QUEUE_EXAMPLE | {"checkpoint": "sd-v1-5", "workers": []}

    def answer(client: httpx.Client, path: str) -> httpx.Response:
        assert (str(client.base_url), path) == ("http://elsewhere", "/v1/queue")
        asked.append(client.headers["authorization"])
        document = {"checkpoints": [QUEUE_EXAMPLE, idle]}
        return httpx.Response(200, json=document)

    asked: list[str] = []
    monkeypatch.setattr(httpx.Client, "get", answer)
    found = planning._measured(planning.settings_of(), "http://elsewhere/", "dr_key")
    assert asked == ["Bearer dr_key"]
    assert list(found) == ["demo"]
    assert found["demo"].speed.drift == 1.006


def test_a_server_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("nobody there")

    monkeypatch.setattr(httpx.Client, "get", refuse)
    with pytest.raises(DarkroomError, match="no answer from http://elsewhere: nobody there"):
        planning._measured(planning.settings_of(), "http://elsewhere", None)


def told(found, goal):
    console = Console(width=200, file=io.StringIO())
    report.show(console, goal, found)
    return console.file.getvalue()


def test_the_report_says_what_holds_and_what_one_below_it_does(plan):
    said = plan(FEW, GOAL.replace("2", "1"), TRAFFIC.replace("3.0", "30.0"), CURVE)
    [crew] = crews(said, load_catalog(), {}, 8)
    found = find(said, crew)
    text = told([found], said.goal)
    assert f"demo: {found.workers} workers hold p99 <= 1 s of 30 generations a second" in text
    verdicts = [line.split()[-1] for line in text.splitlines() if "%" in line]
    assert verdicts == ["misses", "holds"]


def test_the_report_says_where_no_number_would_do(plan):
    said = plan(FEW, GOAL.replace("2.0", "0.1"), TRAFFIC, CURVE)
    text = told([find(said, crews(said, load_catalog(), {}, 8)[0])], said.goal)
    assert "no number of workers holds p99 <= 0.1 s" in text
    assert "alone, the slowest takes 0.4 s" in text


def test_the_command_says_all_figures_in_json(tmp_path: Path):
    (tmp_path / "plan.toml").write_text(FEW + GOAL + TRAFFIC + CURVE)
    answer = CliRunner().invoke(app, ["plan", str(tmp_path / "plan.toml"), "--json"])
    document = json.loads(answer.stdout)
    [demo] = document["checkpoints"]
    [best] = [tried for tried in demo["tried"] if tried["workers"] == demo["workers"]]
    assert best["holds"]
    assert best["total"]["p99"] <= document["goal"]["p99"] == 2.0


def test_the_command_draws_what_it_found(tmp_path: Path):
    pytest.importorskip("matplotlib")
    (tmp_path / "plan.toml").write_text(FEW + GOAL + TRAFFIC + CURVE)
    drawn = tmp_path / "plan.png"
    answer = CliRunner().invoke(app, ["plan", str(tmp_path / "plan.toml"), "--plot", str(drawn)])
    assert answer.exit_code == 0, answer.output
    assert drawn.read_bytes().startswith(b"\x89PNG")
    missing = tmp_path / "nowhere" / "plan.png"
    answer = CliRunner().invoke(app, ["plan", str(tmp_path / "plan.toml"), "--plot", str(missing)])
    assert isinstance(answer.exception, DarkroomError)


def test_the_example_can_be_planned():
    [crew] = crews(read_plan(EXAMPLE), load_catalog(), {}, 16)
    assert len(crew.kinds) == 2
