"""`make mutations`: each mutant, and the test that noticed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.mutations.mutants import MUTANTS, copied, fate, tested


def main() -> int:
    """The exit status: 1 where one survives, or the tests fail without any."""
    with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
        folder = Path(name)
        copied(folder)
        all_tests = tuple(dict.fromkeys(test for mutant in MUTANTS for test in mutant.tests))
        whole = tested(folder, all_tests)
        if whole.returncode:
            print(whole.stdout)  # noqa: T201
            print("the tests fail with nothing taken out")  # noqa: T201
            return 1
        survivors = 0
        for mutant in MUTANTS:
            found = fate(mutant, folder)
            survivors += not found.killer
            killer = found.killer or "NOBODY NOTICED"
            print(f"{found.seconds:5.1f} s  {mutant.what:55} {killer}", flush=True)  # noqa: T201
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} were noticed")  # noqa: T201
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
