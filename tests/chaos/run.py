"""A storm from its first client to its report."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.clients import Clients
from tests.chaos.house import a_house
from tests.chaos.places import PLACES
from tests.chaos.storm import Storm
from tests.chaos.verdict import Inspector, Verdict, percentile

SEED = "CHAOS_SEED"


@dataclass(frozen=True, slots=True)
class Form:
    """How long and how hard it blows."""

    generations: int
    rounds: int
    lease_seconds: float
    pace: float
    longest_seconds: float
    blows: Counter[str]


FULL = Form(
    generations=500,
    rounds=2,
    lease_seconds=3.0,
    pace=0.35,
    longest_seconds=900.0,
    blows=Counter(
        kill_a_worker=25,
        kill_all_workers=2,
        send_a_worker_home=4,
        freeze_a_worker=5,
        cut_a_worker_off=8,
        let_a_worker_hear_nothing=6,
        lose_replies_to_a_worker=8,
        slow_a_worker_down=4,
        kill_a_gateway=6,
        cut_a_gateway_off=6,
        let_a_gateway_hear_nothing=6,
        lose_replies_to_a_gateway=8,
        kill_redis=3,
    ),
)
SHORT = Form(
    generations=80,
    rounds=1,
    lease_seconds=0.8,
    pace=0.3,
    longest_seconds=90.0,
    blows=Counter(
        kill_a_worker=5,
        send_a_worker_home=1,
        freeze_a_worker=1,
        cut_a_worker_off=2,
        let_a_worker_hear_nothing=1,
        lose_replies_to_a_worker=2,
        slow_a_worker_down=1,
        kill_a_gateway=1,
        cut_a_gateway_off=1,
        let_a_gateway_hear_nothing=1,
        lose_replies_to_a_gateway=2,
        kill_redis=1,
    ),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, and what came of it."""

    seed: int
    seconds: float
    form: Form
    struck: Counter[str]
    met: Counter[str]
    did: Counter[str]
    verdict: Verdict
    diary: Sequence[str]

    @property
    def unmet(self) -> list[str]:
        """Fail points at which nobody died."""
        return [place for place in PLACES if not self.met[place]]

    @property
    def figures(self) -> dict[str, Any]:
        """As JSON keeps them."""
        verdict = self.verdict
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "lease_seconds": self.form.lease_seconds,
            "accepted": verdict.accepted,
            "ended": dict(sorted(verdict.states.items())),
            "images_compared": verdict.images,
            "wrong": {name: len(each) for name, each in verdict.wrong.items()},
            "files_swept": verdict.swept_files,
            "blows": dict(sorted(self.struck.items())),
            "deaths_at_fail_points": {place: self.met[place] for place in PLACES},
            "clients": dict(sorted(self.did.items())),
            "takeover_seconds": spread(verdict.takeovers),
            "takeover_seconds_when_more_went_wrong": spread(verdict.disturbed_takeovers),
        }

    @property
    def text(self) -> str:
        """For a person."""
        lines = []
        for name, value in self.figures.items():
            if isinstance(value, dict):
                lines.append(name.replace("_", " "))
                lines += [f"  {key.replace('_', ' '):32} {each:>8}" for key, each in value.items()]
            else:
                lines.append(f"{name.replace('_', ' '):34} {value:>8}")
        for name, each in self.verdict.wrong.items():
            lines += [f"WRONG {name}: {what}" for what in each]
        if any(self.verdict.wrong.values()):
            lines += ["", *self.diary]
        return "\n".join([*lines, f"{SEED}={self.seed}"])

    def write(self, file: Path) -> None:
        """Keep the figures."""
        file.write_text(json.dumps(self.figures, indent=2) + "\n")


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """How they are distributed."""
    shares = {f"p{n}": round(percentile(seconds, n / 100), 2) for n in (50, 95, 99)}
    return {"count": len(seconds), **shares, "max": round(max(seconds, default=0.0), 2)}


def run(folder: Path, seed: int, form: Form) -> Report:
    """All of it, in this folder."""
    began = time.monotonic()
    dice = random.Random(seed)
    with a_house(folder, dice, form.lease_seconds) as house:
        clients = Clients(house.urls, seed, form.generations, form.pace)
        storm = Storm(house, dice, form.blows, form.rounds)
        storm.rage(form.longest_seconds)
        clients.enough()
        while clients.busy:
            time.sleep(0.05)
        verdict = Inspector(house, clients, storm).inspect()
    did = clients.did
    seconds = time.monotonic() - began
    return Report(seed, seconds, form, storm.struck, storm.met, did, verdict, storm.diary)
