"""What is in deploy/systemd, as data: units by section, environment files by name."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from tests.deploy.files import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNITS = ("darkroom-gateway.service", "darkroom-worker@.service")
PROGRAM = "/opt/darkroom/bin/darkroom"
VARIABLE = re.compile(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


@dataclass(slots=True)
class Unit:
    """One file; what is said twice of one thing is all kept, in order."""

    said: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def all(self, key: str, section: str = "Service") -> list[str]:
        """Everything it says of it."""
        return self.said.get((section, key), [])

    def one(self, key: str, section: str = "Service") -> str:
        """The only thing that it says of it."""
        [value] = self.all(key, section)
        return value

    def environment(self) -> dict[str, str]:
        """What it sets by itself."""
        return dict(pair.split("=", 1) for line in self.all("Environment") for pair in line.split())

    def files(self) -> list[str]:
        """What it reads settings from: names in /etc/darkroom, without `.env`."""
        paths = self.all("EnvironmentFile")
        return [path.removeprefix("/etc/darkroom/").removesuffix(".env") for path in paths]

    def arguments(self) -> list[str]:
        """Of the program."""
        program, *arguments = shlex.split(self.one("ExecStart"))
        assert program == PROGRAM
        return arguments


def unit(name: str) -> Unit:
    """By its file."""
    found, section = Unit(), ""
    for line in (FOLDER / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.said.setdefault((section, key), []).append(value)
    return found


def example(name: str) -> dict[str, str]:
    """What an environment file has set before anybody edits it."""
    return {key: value for hidden, key, value in _lines(name) if not hidden}


def offered(name: str) -> dict[str, str]:
    """What it has as a comment, to be taken up."""
    return {key: value for hidden, key, value in _lines(name) if hidden}


def _lines(name: str) -> list[tuple[str, str, str]]:
    return VARIABLE.findall((FOLDER / f"{name}.env.example").read_text())


def seconds(span: str) -> float:
    """As these units write them."""
    [number] = re.findall(r"^(\d+)s$", span)
    return float(number)
