"""What is in docker/, as data: Dockerfiles by stage, the compose file by service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = ("gateway.Dockerfile", "worker.Dockerfile")
COMPOSE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
"""As Compose writes them; a default may have no braces here."""


@dataclass(slots=True)
class Stage:
    """One FROM, and what follows it."""

    base: str
    name: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    """Instructions and what they say, without flags being told apart."""

    def said(self, instruction: str) -> list[str]:
        """What it says with this instruction."""
        return [rest for each, rest in self.lines if each == instruction]


def stages(dockerfile: str) -> list[Stage]:
    """Of one Dockerfile, in order."""
    text = (DOCKER / dockerfile).read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Stage] = []
    for line in filter(str.strip, text.splitlines()):
        instruction, rest = line.split(maxsplit=1)
        rest = " ".join(rest.split())
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        elif found:
            found[-1].lines.append((instruction, rest))
    return found


def arguments(dockerfile: str) -> dict[str, str]:
    """Every ARG with its default."""
    text = (DOCKER / dockerfile).read_text()
    return dict(re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', text, re.MULTILINE))


def environment(stage: Stage) -> dict[str, str]:
    """What ENV sets in it."""
    return dict(pair.split("=", 1) for line in stage.said("ENV") for pair in line.split())


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """A part of the compose file with its variables, or their defaults, put in; those that have
    neither are what they are called."""
    if isinstance(value, dict):
        return {key: filled(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, variables) for each in value]
    if not isinstance(value, str):
        return value
    return VARIABLE.sub(
        lambda found: variables.get(found[1], found[3] if found[2] == "-" else found[1]),
        value,
    )


def services(**variables: str) -> dict[str, dict[str, Any]]:
    """Every service, of whatever profile."""
    document = yaml.safe_load(COMPOSE.read_text())
    return dict(filled(document["services"], variables))


def networks() -> dict[str, dict[str, Any]]:
    """Every network; those that need no options have none."""
    document = yaml.safe_load(COMPOSE.read_text())
    return {name: options or {} for name, options in document["networks"].items()}
