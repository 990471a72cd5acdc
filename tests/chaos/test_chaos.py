"""The short form of `make chaos`."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.run import SEED, SHORT, run


@pytest.mark.timeout(300)
def test_whatever_dies_everything_accepted_ends_once_and_looks_as_it_should(tmp_path: Path) -> None:
    seed = int(os.environ.get(SEED) or random.randrange(10**6))
    report = run(tmp_path, seed, SHORT)
    print(report.text)  # noqa: T201  # shown when the test fails
    assert report.verdict.wrong == {name: [] for name in report.verdict.wrong}, report.text
    assert report.verdict.takeover_p95 <= 5.0
    assert report.unmet == []
