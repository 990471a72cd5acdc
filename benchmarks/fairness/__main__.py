"""`python -m benchmarks.fairness [--out FILE]`: the study alone, as a table and as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.fairness.plot import save
from benchmarks.fairness.report import study, study_figures


def main() -> None:
    """Everything in it is the same on every machine."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    parser.add_argument("--out", type=Path, help="a picture of it")
    options = parser.parse_args()
    found = study()
    print(f"{'device':<20} {'load':>4}  {'rule':<25} {'kind':<6}   mean    p50    p95")
    for device, points in found.items():
        for p in points:
            seconds = f"{p.mean:6.2f} {p.p50:6.2f} {p.p95:6.2f}"
            print(f"{device:<20} {p.share:>4.0%}  {p.rule:<25} {p.kind or 'all':<6} {seconds}")
    for figure in study_figures(found):
        print(figure)
    if options.out:
        save(options.out, found)


if __name__ == "__main__":
    main()
