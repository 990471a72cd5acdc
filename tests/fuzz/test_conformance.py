"""Whatever the OpenAPI document lets one send, and much that it does not, is answered as it says.

`FUZZ_SEED=random` sends other cases than the last time, `FUZZ_CASES=500` more of each operation.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.pictures import mask, picture, text
from tests.fuzz.house import GatewayProcess, tell

LEAST = 2000
"""Cases of one run."""
CASES = int(os.environ.get("FUZZ_CASES", "60"))
"""Of each operation, beside those that follow from its schema."""
FRESH = os.environ.get("FUZZ_SEED") == "random"
SECONDS = 1200
"""Far more than it takes, so that a slow machine is told from a gateway that hangs."""


@pytest.mark.timeout(SECONDS + 60)
def test_every_answer_is_as_the_document_says(
    gate: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(Path(__file__).with_name("schemathesis.toml"), tmp_path)
    write(tmp_path / "pictures.txt", text(picture()), text(mask()))
    write(tmp_path / "ids.txt", *(drawn(gate) for _ in range(3)))
    before, report = gate.memory, tmp_path / "report.json"
    options = ["--max-examples", str(CASES), "--report-json-path", str(report)]
    options += ["--continue-on-failure", "--no-color"]
    options += [] if FRESH else ["--generation-deterministic"]
    told = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{gate.url}/openapi.json", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert told.returncode == 0, told.stdout[-20_000:] + told.stderr[-2000:]
    sent, count = json.loads(report.read_text()), gate.answers()
    cases, seconds = sent["test_cases"]["generated"], sent["running_time"]
    grown = f"the gateway from {before / 2**20:.0f} to {gate.memory / 2**20:.0f} MiB"
    statuses = ", ".join(f"{number:,} x {status}" for status, number in sorted(count.items()))
    tell(capsys, f"{cases:,} cases in {seconds:.0f} s, {grown}; {statuses}")
    assert cases >= LEAST
    assert sent["operations"]["tested"] == sent["operations"]["total"]
    assert count[200] + count[202] > LEAST / 5, "too few were any good"


def write(dictionary: Path, *entries: str) -> None:
    dictionary.write_text("\n".join(map(json.dumps, entries)))


def drawn(gate: GatewayProcess) -> str:
    """The id of a generation that has all there is to ask for."""
    asked = {
        "checkpoint": "any",
        "task": "image-to-image",
        "prompt": "a boat",
        "num_images": 2,
        "image": text(picture()),
        "previews": 2,
        "webhook": {"url": "https://hooks.invalid/here"},
    }
    with gate.client() as client:
        answer = client.post("/v1/generations", json=asked, headers={"Prefer": "wait=5"})
    assert answer.json()["status"] == "succeeded", answer.text
    id: str = answer.json()["id"]
    return id
