"""`darkroom generate`: a file from a prompt, with a server and without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from server.listener import listen
from tests.system.conftest import UNMEASURED, Served


def generate(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "generate", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **UNMEASURED, **env},
        capture_output=True,
        text=True,
        timeout=150,
    )


def test_it_draws_at_a_server_that_runs(served: Served, tmp_path: Path) -> None:
    options = ["--steps", "4", "--seed", "5", "--size", "128x96", "-n", "2"]
    ended = generate(tmp_path, "a red circle", "--server", served.url, "-o", "a.webp", *options)
    assert ended.returncode == 0, ended.stderr
    for name in ("a-1.webp", "a-2.webp"):
        with Image.open(tmp_path / name) as image:
            assert (image.format, image.size) == ("WEBP", (128, 96))
    assert "seed 6" in ended.stderr


def test_it_finds_the_server_of_this_machine(served: Served, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    ended = generate(tmp_path, "a red circle", "--steps", "2", DARKROOM_PORT=port)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out.png").exists()
    assert "private" not in ended.stderr


def test_without_a_server_it_brings_its_own(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as free:
        port = str(free.getsockname()[1])
    ended = generate(tmp_path, "a red circle", "--steps", "4", DARKROOM_PORT=port)
    assert ended.returncode == 0, ended.stderr
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (128, 128)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert f"No server answers at http://127.0.0.1:{port}" in ended.stderr
    assert "--server or DARKROOM_SERVER" in ended.stderr


def test_the_reason_of_a_refusal_is_said(served: Served, tmp_path: Path) -> None:
    ended = generate(tmp_path, "a red circle", "--steps", "9999", "--server", served.url)
    assert ended.returncode == 1
    assert "num_inference_steps" in ended.stderr
    assert not (tmp_path / "out.png").exists()


def test_a_name_that_is_no_sampler_is_refused(served: Served, tmp_path: Path) -> None:
    ended = generate(tmp_path, "a red circle", "--sampler", "magic", "--server", served.url)
    assert ended.returncode == 1
    assert "sampler" in ended.stderr
