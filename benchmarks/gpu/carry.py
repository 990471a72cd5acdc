"""What must be carried to a machine that reaches no package registry.

    python -m benchmarks.gpu.carry --there there.txt > carry.txt

prints a pinned line for each package that the benchmark imports, but for torch with its own, and
for those that `pip freeze` says are there already.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path

OURS = "darkroom"
WITH_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*|setuptools|pip|sympy|mpmath|networkx")
"""What is there where torch is."""
LATER = ("matplotlib.figure", "torchsde", "safetensors.torch")
"""That are imported when they are needed."""


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.carry", description=__doc__)
    parser.add_argument("--there", type=Path, help="what `pip freeze` prints on that machine")
    there = parser.parse_args().there
    import_module("benchmarks.gpu.__main__")
    for module in LATER:
        import_module(module)
    present = names_in(there.read_text()) if there else frozenset()
    for line in needed(sys.modules, packages_distributions(), present):
        print(line)


def needed(
    modules: Iterable[str], distributions: Mapping[str, Iterable[str]], there: Iterable[str]
) -> list[str]:
    """NAME==VERSION of the distributions that these modules are of."""
    tops = {module.partition(".")[0] for module in modules}
    names = {normal(name) for top in tops for name in distributions.get(top, ())}
    left = names - set(there) - {OURS}
    return [f"{name}=={version(name)}" for name in sorted(left) if not WITH_TORCH.fullmatch(name)]


def names_in(freeze: str) -> frozenset[str]:
    """Of the packages in what `pip freeze` or `pip list` prints."""
    words = (re.match(r"[A-Za-z0-9._-]+", line) for line in freeze.splitlines())
    return frozenset(normal(word[0]) for word in words if word)


def normal(name: str) -> str:
    """As package registries compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
