"""`darkroom replay` and `darkroom queue` as people run them, at a server that draws."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.system.conftest import UNMEASURED, Served

DRAW = ("generate", "a red circle", "--steps", "4", "--seed", "5", "-o", "circle.png")


def darkroom(served: Served, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "DARKROOM_SERVER": served.url, "COLUMNS": "120"} | UNMEASURED,
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.fixture
def circle(served: Served, tmp_path: Path) -> Path:
    ended = darkroom(served, tmp_path, *DRAW)
    assert ended.returncode == 0, ended.stderr
    return tmp_path / "circle.png"


def test_a_picture_that_was_drawn_is_drawn_again(
    served: Served, circle: Path, tmp_path: Path
) -> None:
    ended = darkroom(served, tmp_path, "replay", "circle.png")
    assert ended.returncode == 0, ended.stderr
    assert "equal" in ended.stderr
    assert (tmp_path / "circle-again.png").read_bytes() == circle.read_bytes()


def test_another_picture_is_told_by_words_and_exit_code(
    served: Served, circle: Path, tmp_path: Path
) -> None:
    with Image.open(circle) as opened:
        manifest = json.loads(opened.text["darkroom"])  # type: ignore[attr-defined]
    manifest["spec"]["prompt"] = "a green triangle"
    (tmp_path / "other.json").write_text(json.dumps(manifest))
    ended = darkroom(served, tmp_path, "replay", "other.json", "-o", "other.png")
    assert ended.returncode == 1
    assert "different" in ended.stderr
    assert (tmp_path / "other.png").exists()


def test_an_infotext_has_nothing_to_compare_with(
    served: Served, circle: Path, tmp_path: Path
) -> None:
    with Image.open(circle) as opened:
        (tmp_path / "circle.txt").write_text(opened.text["parameters"])  # type: ignore[attr-defined]
    ended = darkroom(served, tmp_path, "replay", "circle.txt")
    assert ended.returncode == 0, ended.stderr
    assert "nothing is known" in ended.stderr
    with Image.open(circle) as old, Image.open(tmp_path / "circle-again.png") as new:
        assert old.tobytes() == new.tobytes()


def test_what_is_missing_is_named(served: Served, circle: Path, tmp_path: Path) -> None:
    made = ("generate", "a green circle", "--image", "circle.png", "--steps", "4", "-o", "b.png")
    assert darkroom(served, tmp_path, *made).returncode == 0
    ended = darkroom(served, tmp_path, "replay", "b.png")
    assert ended.returncode == 1
    assert "input: is needed" in ended.stderr
    again = darkroom(served, tmp_path, "replay", "b.png", "--input", "circle.png")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("content", [b"\x00\xff", b"\x89PNG broken"])
def test_a_file_that_holds_no_recipe_is_refused(
    served: Served, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "odd.png").write_bytes(content)
    ended = darkroom(served, tmp_path, "replay", "odd.png")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr


def test_a_sweep_says_which_prompt_each_number_stands_for(served: Served, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n# no prompt\na green circle\n")
    options = ("--vary", "guidance_scale=2,4", "--steps", "2", "-o", "table")
    ended = darkroom(served, tmp_path, "sweep", "prompts.txt", *options)
    assert ended.returncode == 0, ended.stderr
    assert "002 of 2  a green circle" in ended.stderr
    said = (tmp_path / "table" / "index.tsv").read_text().splitlines()
    assert said == ["number\tprompt", "001\ta red circle", "002\ta green circle"]
    with Image.open(tmp_path / "table" / "002-grid.png") as grid:
        text = grid.text["parameters"]  # type: ignore[attr-defined]
    assert "X Type: CFG Scale" in text
    assert 'X Values: "2, 4"' in text


def test_the_queue_is_a_table_of_who_is_served(served: Served, tmp_path: Path) -> None:
    ended = darkroom(served, tmp_path, "queue")
    assert ended.returncode == 0, ended.stderr
    head, *rows = ended.stdout.splitlines()
    assert head.split() == ["checkpoint", "waiting", "running", "workers", "pace", "wait"]
    assert [row.split()[0] for row in rows] == ["demo"]
    every = darkroom(served, tmp_path, "queue", "--all")
    assert "sd-v1-5" in every.stdout


def test_where_no_server_answers_the_queue_says_how_to_name_one(tmp_path: Path) -> None:
    from server.listener import listen

    with listen("127.0.0.1", 0) as free:
        port = str(free.getsockname()[1])
    ended = subprocess.run(
        [sys.executable, "-m", "server", "queue"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "DARKROOM_PORT": port},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert f"no server answers at http://127.0.0.1:{port}" in ended.stderr
    assert "--server" in ended.stderr


def test_a_picture_is_no_part_of_what_a_pipe_gets(served: Served, tmp_path: Path) -> None:
    assert httpx.get(f"{served.url}/healthz").is_success
    ended = darkroom(served, tmp_path, *DRAW, "--inline")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    assert "--inline: this is no terminal" in ended.stderr
