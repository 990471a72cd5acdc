"""`darkroom generate` and `darkroom sweep` against a real gateway."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from server import log
from server.cli import app
from server.spec import Warn
from tests.api.house import Hands
from tests.api.pictures import mask, picture

Darkroom = Callable[..., Result]


@contextmanager
def drawing(
    painter: Hands, *pictures: bytes, checkpoint: str = "any", warnings: Sequence[Warn] = ()
) -> Iterator[list[str]]:
    """Somebody who draws whatever is queued, with a grid as the last of several."""
    drawn: list[str] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            found = painter.redis.lpop(f"rq:queue:{checkpoint}")
            if found is not None:
                id = found.decode()  # type: ignore[union-attr]
                painter.succeed(id, *pictures, warnings=warnings, grid=len(pictures) > 1)
                drawn.append(id)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield drawn
    finally:
        over.set()
        thread.join(10)


@pytest.fixture
def darkroom(atelier: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Darkroom:
    """Runs the command in an empty folder, at the atelier's server."""
    monkeypatch.chdir(tmp_path)
    # It would log to the runner's stderr, which is closed when the command ends.
    monkeypatch.setattr(log, "configure", lambda *_: None)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--server", str(atelier.base_url)])

    return run


def spec_of(atelier: httpx.Client, id: str) -> dict[str, object]:
    found: dict[str, object] = atelier.get(f"/v1/generations/{id}").json()["spec"]
    return found


def test_generate_sends_pictures_and_everything_said(
    darkroom: Darkroom, atelier: httpx.Client, painter: Hands, tmp_path: Path
) -> None:
    (tmp_path / "sea.png").write_bytes(picture())
    (tmp_path / "mask.png").write_bytes(mask())
    with drawing(painter, b"PNG") as drawn:
        said = "--task inpainting --image sea.png --mask mask.png --strength 0.5 --checkpoint any"
        more = "--lora ink:0.5 --lora oil --no-keep-outside --padding-mask-crop 8 -o out.png"
        done = darkroom("generate", "a boat", *said.split(), *more.split())
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.png").read_bytes() == b"PNG"
    spec = spec_of(atelier, drawn[0])
    assert (spec["task"], spec["strength"], spec["keep_outside"]) == ("inpainting", 0.5, False)
    assert spec["loras"] == [{"name": "ink", "scale": 0.5}, {"name": "oil", "scale": 1.0}]


def test_generate_can_go_on_from_the_first_drawing(
    darkroom: Darkroom, atelier: httpx.Client, painter: Hands
) -> None:
    with drawing(painter, b"PNG") as drawn:
        said = ["--checkpoint", "any", "--hires", "1.5", "--refiner", "any", "--switch-at", "0.7"]
        assert darkroom("generate", "a boat", *said).exit_code == 0
    spec = spec_of(atelier, drawn[0])
    assert spec["hires"]["width"] == 192  # type: ignore[index]
    assert spec["refiner"]["switch_at"] == 0.7  # type: ignore[index]


def test_generate_asks_for_shortcuts(
    darkroom: Darkroom, painter: Hands, atelier: httpx.Client
) -> None:
    with drawing(painter, b"PNG") as drawn:
        said = ["--checkpoint", "any", "--guidance-end", "0.5", "--cache-interval", "3"]
        assert darkroom("generate", "a boat", *said).exit_code == 0
    spec = spec_of(atelier, drawn[0])
    assert (spec["guidance_end"], spec["cache_interval"]) == (0.5, 3)


def test_generate_says_what_is_ignored_at_once_and_what_the_worker_cuts_in_the_end(
    darkroom: Darkroom, painter: Hands
) -> None:
    cut = Warn(code="prompt_truncated", message="prompt is cut off", field="prompt")
    with drawing(painter, b"PNG", warnings=[cut]):
        said = ["--checkpoint", "any", "--guidance", "1", "--negative-prompt", "blue"]
        done = darkroom("generate", "a boat", *said)
    assert done.output.count("warning: negative_prompt: is ignored") == 1
    assert done.output.count("warning: prompt is cut off") == 1


def test_generate_says_what_the_server_refuses(darkroom: Darkroom, tmp_path: Path) -> None:
    (tmp_path / "sea.png").write_bytes(picture())
    done = darkroom("generate", "a boat", "--checkpoint", "x4", "--image", "sea.png")
    assert done.exit_code != 0
    assert "x4 offers upscale" in str(done.exception)


@pytest.mark.parametrize(
    ("said", "task"),
    [
        ("", "image-to-image"),
        ("--mask mask.png", "inpainting"),
        ("--depth-map mask.png", "depth-to-image"),
        ("--noise-level 20 --checkpoint x4", "upscale"),
        ("--task depth-to-image", "depth-to-image"),
    ],
)
def test_generate_takes_the_task_that_the_pictures_are_for(
    darkroom: Darkroom,
    atelier: httpx.Client,
    painter: Hands,
    tmp_path: Path,
    said: str,
    task: str,
) -> None:
    (tmp_path / "sea.png").write_bytes(picture())
    (tmp_path / "mask.png").write_bytes(mask())
    checkpoint = "x4" if "x4" in said else "any"
    with drawing(painter, b"PNG", checkpoint=checkpoint) as drawn:
        arguments = ["--checkpoint", "any", *said.split()]
        assert darkroom("generate", "a boat", "--image", "sea.png", *arguments).exit_code == 0
    assert spec_of(atelier, drawn[0])["task"] == task


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "a boat", "--image", "nowhere.png"],
        ["generate", "a boat", "--lora", "ink:much"],
        ["generate", "a boat", "--switch-at", "0.5"],
        ["sweep", "nowhere.txt"],
        ["sweep", "empty.txt"],
        ["sweep", "prompts.txt", "--vary", "seed"],
        ["sweep", "prompts.txt", "--vary", "seed=1", "--vary", "seed=2"],
        ["sweep", "prompts.txt", "--vary", "guidance_scale=2,2.0"],
        ["sweep", "comments.txt"],
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(
    darkroom: Darkroom, painter: Hands, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "comments.txt").write_text("# a boat\n  # a ship\n")
    (tmp_path / "prompts.txt").write_text("a boat\n")
    assert darkroom(*arguments).exit_code == 2
    assert painter.queued("any") == 0


def test_sweep_draws_the_table_of_the_model_card_for_each_prompt(
    darkroom: Darkroom, atelier: httpx.Client, painter: Hands, tmp_path: Path
) -> None:
    prompts = [f"boat {number}" for number in range(5)]
    (tmp_path / "prompts.txt").write_text("\n".join([*prompts[:2], "", "# more", *prompts[2:]]))
    with drawing(painter, b"one", b"all") as drawn:
        done = darkroom("sweep", "prompts.txt", "-o", "table", "--checkpoint", "any")
    assert done.exit_code == 0, done.output
    specs = [spec_of(atelier, id) for id in drawn]
    assert [spec["prompt"] for spec in specs] == prompts
    assert specs[0]["sweep"] == {
        "axes": [{"field": "guidance_scale", "values": [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]}]
    }
    assert {(s["sampler"], s["num_inference_steps"], s["seed"]) for s in specs} == {("ddim", 50, 0)}
    assert (tmp_path / "table" / "005-grid.png").read_bytes() == b"all"
    assert len(list((tmp_path / "table").iterdir())) == 10 + len(["index.tsv"])


def test_sweep_varies_what_it_is_told_to(
    darkroom: Darkroom, atelier: httpx.Client, painter: Hands, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a boat\n")
    with drawing(painter, b"one", b"all") as drawn:
        varied = ["--vary", "sampler=ddim,euler", "--vary", "num-inference-steps=5,10"]
        done = darkroom("sweep", "prompts.txt", *varied, "--checkpoint", "any")
    assert done.exit_code == 0, done.output
    [spec] = [spec_of(atelier, id) for id in drawn]
    assert spec["num_images"] == 4
    assert (tmp_path / "sweep").is_dir()
