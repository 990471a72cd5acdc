"""What the tests of docker/ fetch and keep in build/: programs that look at files, and a virtual
environment with what the gateway's image holds."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.files import ROOT

KEPT = ROOT / "build" / "deploy"
TOOLS = Path(__file__).with_name("tools.txt")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    """Other runs of these tests, in the same tree at the same time, wait meanwhile."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tool(name: str) -> str:
    """The path of a program of tools.txt; skips where there is none for this machine."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip(f"{name}: its package is for Linux on x86_64 alone")
    folder = KEPT / f"tools-{_digest(TOOLS.read_text())}"
    with alone("tools"):
        if not folder.exists():
            _fetch(folder)
    return str(folder / "bin" / name)


def environment(requirements: list[str]) -> Path:
    """A virtual environment with these, as they are pinned, and nothing else, not even pip."""
    constraints = ROOT / "constraints.txt"
    wanted = "\n".join((sys.version, *requirements, constraints.read_text()))
    folder = KEPT / f"gateway-{_digest(wanted)}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        pip(folder, "install", "--constraint", str(constraints), *requirements)
        (folder / "ready").touch()
    return folder


def pip(environment: Path, command: str, *what: str) -> None:
    """As the Dockerfiles do: pip is not in there."""
    python = environment / "bin" / "python"
    constrained = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    _run(*PIP, "--python", str(python), command, "--quiet", *what, env=constrained)


def _fetch(folder: Path) -> None:
    half = folder.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    pinned = ("--no-deps", "--require-hashes", "--requirement", str(TOOLS))
    _run(*PIP, "install", "--quiet", *pinned, "--target", str(half))
    half.rename(folder)


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    if done.returncode == 0:
        return
    reason = f"pip cannot install what this test needs: {done.stderr.strip()[-500:]}"
    pytest.skip(reason)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
