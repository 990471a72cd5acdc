"""`python -m benchmarks.control`: the ladder as it is asked for, without what else is measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.control.figures import Ladder, figures

DEFAULT = Ladder()


def main(arguments: list[str]) -> None:
    """Climb it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    parser.add_argument("--workers", type=numbers, default=DEFAULT.workers, help="such as 1,2,4")
    parser.add_argument("--each", type=int, default=DEFAULT.each, help="workers in a process")
    parser.add_argument("--gateways", type=int, default=DEFAULT.gateways, help="that share a door")
    parser.add_argument("--steps", type=int, default=DEFAULT.steps, help="of a picture")
    parser.add_argument("--rest", type=float, default=DEFAULT.rest_seconds, help="seconds, first")
    parser.add_argument("--warm", type=float, default=DEFAULT.warm_seconds, help="seconds, then")
    parser.add_argument("--seconds", type=float, default=DEFAULT.seconds, help="of each rung")
    parser.add_argument("--out", type=Path, help="a JSON file, and a plot beside it")
    said = parser.parse_args(arguments)
    ladder = Ladder(
        said.workers, said.each, said.gateways, said.steps, said.rest, said.warm, said.seconds
    )
    for figure in figures(said.out, ladder):
        print(figure)


def numbers(text: str) -> tuple[int, ...]:
    """Of workers, rising."""
    return tuple(sorted(int(each) for each in text.split(",")))


if __name__ == "__main__":
    main(sys.argv[1:])
