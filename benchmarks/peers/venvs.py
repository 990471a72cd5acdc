"""Environments of their own for peers that would change ours. Made once, on first use."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

FOLDER = Path("build/peers")
BENTOML = ("bentoml==1.4.39",)
XINFERENCE = (
    "xinference==4.1.0",
    f"torch=={version('torch').partition('+')[0]}",
    "diffusers==0.39.0",
)
"""Its click is older than the one of the hub client that diffusers 0.42 needs."""
UNFIT = ("torchvision", "timm")
"""What Xinference brings and needs for nothing here: made for CUDA, it breaks a torch for CPUs."""


def bentoml() -> str:
    """Its interpreter."""
    return interpreter("bentoml", *BENTOML)


def xinference() -> str:
    """Its interpreter."""
    return interpreter("xinference", *XINFERENCE, without=UNFIT)


def interpreter(name: str, *requirements: str, without: Sequence[str] = ()) -> str:
    """Of an environment that has these, and everything of ours that they do not replace.

    Args:
        without: what is taken out again.

    Raises:
        subprocess.CalledProcessError: they cannot be installed.
    """
    folder = (FOLDER / name).resolve()
    python, ready = folder / "bin" / "python", folder / ".ready"
    said = "\n".join(requirements)
    if ready.exists() and ready.read_text() == said:
        return str(python)
    print(f"making an environment for {name} in {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [str(python), "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *requirements], check=True, stdout=sys.stderr)
    if without:
        subprocess.run([*pip, "uninstall", "--yes", *without], check=True, stdout=sys.stderr)
    ready.write_text(said)
    return str(python)
