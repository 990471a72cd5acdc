"""What the gateway's image holds, installed here: it works without torch."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.api.house import wait_until
from tests.deploy.files import ROOT
from tests.deploy.tools import alone, environment, pip
from tests.redis_server import RedisServer

pytestmark = pytest.mark.xdist_group("deploy")


@pytest.fixture(scope="module")
def gateway_only() -> Iterator[Path]:
    """A clean virtual environment with `pip install .`, no extra, as pinned; without what the
    Dockerfile takes out again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with alone("gateway"):
        folder = environment(project["dependencies"])
        pip(folder, "install", "--no-deps", "--force-reinstall", str(ROOT))
        pip(folder, "uninstall", "--yes", "hf-xet")
        for weights in folder.rglob("*.safetensors"):
            weights.unlink()
        yield folder


def test_the_dockerfile_takes_out_no_more() -> None:
    text = (ROOT / "docker" / "gateway.Dockerfile").read_text()
    assert re.findall(r"python uninstall --yes (.*?) *\\?\n", text) == ["hf-xet"]
    assert re.findall(r"-name '(\S+)' -delete", text) == ["*.safetensors"]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


def run(folder: Path, *arguments: str) -> str:
    """A program of that environment."""
    command = [folder / "bin" / arguments[0], *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


def test_it_is_installed_without_torch_and_without_pip(gateway_only: Path) -> None:
    found = run(
        gateway_only,
        "python",
        "-c",
        "from importlib.metadata import distributions\n"
        "print(*sorted(each.name.lower() for each in distributions()))",
    ).split()
    assert "darkroom" in found
    assert not {"torch", "diffusers", "transformers", "numpy", "scipy", "pip"} & set(found)


def test_a_gateway_starts_from_it_and_answers(
    gateway_only: Path, redis: RedisServer, tmp_path: Path
) -> None:
    told = {"PATH": os.environ["PATH"], "DARKROOM_REDIS": redis.url}
    output = tmp_path / "log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [gateway_only / "bin" / "darkroom", "gateway", "--port", "0", "--data-dir", "data"],
            env=told,
            stdout=log,
            stderr=log,
            cwd=tmp_path,
        )

    def listening() -> re.Match[str] | None:
        assert process.poll() is None, output.read_text()
        return re.search(r"listening on (http://\S+)", output.read_text())

    try:
        wait_until(listening, seconds=60)
        assert (said := listening()) is not None
        assert httpx.get(f"{said[1]}/healthz", timeout=30).json() == {"status": "ok"}
        # Its own seconds are the same whatever else the machine does.
        times = psutil.Process(process.pid).cpu_times()
        assert times.user + times.system < 2.0
        assert httpx.get(f"{said[1]}/readyz", timeout=30).status_code == 503
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_the_first_key_is_made_with_it(gateway_only: Path, redis: RedisServer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            [gateway_only / "bin" / "darkroom", "keys", "create", "me"],
            env={"PATH": os.environ["PATH"], "DARKROOM_REDIS": redis.url},
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
    assert re.fullmatch(r"dr_[0-9a-f]{12}_[\w-]{43}\n", made.stdout)
