"""What came out: figures with their bars, what was not measured and why, and the curves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.bars import bar_for
from benchmarks.timing import Figure, noted

SMOKE = "smoke, not a measurement"


@dataclass
class Report:
    """Prints each figure as it comes and writes all of them down each time, so that a run that is
    ended from outside leaves what it had.

    Args:
        smoke: tiny checkpoints: nothing is held to a bar.
    """

    out: Path | None = None
    smoke: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    tell: Callable[[str], object] = print
    figures: list[Figure] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """By plot, then by line."""
    profiles: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Where the device's time went."""

    def add(self, what: str, model: str, value: float, unit: str, detail: str = "") -> None:
        """A figure, beside its bar if there is one."""
        name = f"{model}: {what}"
        bar = None if self.smoke else bar_for(what, model)
        figure = bar.figure(name, value, unit, detail) if bar else noted(name, value, unit, detail)
        self.figures.append(figure)
        self.say(str(figure))
        self.save()

    def trace(self, plot: str, line: str, points: list[tuple[float, float]]) -> None:
        """A curve."""
        self.curves.setdefault(plot, {})[line] = points
        self.save()

    def leave_out(self, what: str, why: str) -> None:
        """Something that was not measured, or not to its end."""
        self.not_measured.append(f"{what}: {why}")
        self.say(f"NOT MEASURED {what}: {why}")
        self.save()

    def say(self, line: str) -> None:
        """To who watches."""
        self.tell(f"[{SMOKE}] {line}" if self.smoke else line)
        sys.stdout.flush()  # so that a log kept elsewhere is not behind

    def close(self) -> None:
        """The end of it."""
        held = [figure for figure in self.figures if figure.bar]
        missed = [figure.name for figure in held if not figure.met]
        self.say(f"{len(held) - len(missed)} of {len(held)} bars met")
        for name in missed:
            self.say(f"MISSED: {name}")
        for each in self.not_measured:
            self.say(f"NOT MEASURED: {each}")
        self.save()

    def save(self) -> None:
        """All there is so far."""
        if self.out is None:
            return
        document = {
            **({"note": SMOKE} if self.smoke else {}),
            "device": self.about,
            "figures": [asdict(figure) for figure in self.figures],
            "curves": self.curves,
            "profiles": self.profiles,
            "not_measured": self.not_measured,
        }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(document, indent=2) + "\n")
