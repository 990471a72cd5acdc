"""`make chaos`: the full form. Prints its report, and keeps it where `--out` says."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import FULL, SEED, SHORT, run


def main() -> int:
    """The exit status: 1 where anything was wrong."""
    options = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    options.add_argument("--out", type=Path, help="where to write the figures, as JSON")
    options.add_argument("--short", action="store_true", help="as `make test` has it")
    chosen = options.parse_args()
    seed = int(os.environ.get(SEED) or random.randrange(10**6))
    print(f"{SEED}={seed}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        report = run(Path(folder), seed, SHORT if chosen.short else FULL)
    print(report.text)  # noqa: T201
    if chosen.out:
        report.write(chosen.out)
    late = report.verdict.takeover_p95 > 5.0
    return int(any(report.verdict.wrong.values()) or bool(report.unmet) or late)


if __name__ == "__main__":
    sys.exit(main())
