"""Prints what pyproject.toml wants besides Python: the gateway's part, and the named extras.

    python docker/requirements.py worker,quantized > requirements.txt

Images install from what this prints, so that no change but one of the dependencies themselves
makes them fetch it all again.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: str = "") -> list[str]:
    """Of the project, and of extras that are named with commas between them.

    Raises:
        KeyError: there is no such extra.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    wanted: list[str] = project["dependencies"]
    for extra in extras.split(",") if extras else ():
        wanted = [*wanted, *project["optional-dependencies"][extra]]
    return wanted


if __name__ == "__main__":
    for each in requirements(Path("pyproject.toml"), *sys.argv[1:2]):
        sys.stdout.write(f"{each}\n")
