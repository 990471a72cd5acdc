"""The short form of `make mutations`: those without which nothing would hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.mutants import MUTANTS, ROOT, Mutant, copied, fate, without

MOST_NEEDED = (
    "the ledger's WATCH",
    "the token check",
    "the lease test of a rescue",
    "the standing check of a finish",
    "that a cancel leaves the line",
    "the idempotency of a submit",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, to be mutilated."""
    made = tmp_path_factory.mktemp("mutants")
    copied(made)
    return made


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_what_a_mutant_takes_out_is_there(mutant: Mutant) -> None:
    whole = (ROOT / "server" / mutant.file).read_text()
    assert without(mutant, whole) != whole


@pytest.mark.parametrize("what", MOST_NEEDED)
def test_the_suite_notices_what_is_taken_out(folder: Path, what: str) -> None:
    [mutant] = [each for each in MUTANTS if each.what == what]
    found = fate(mutant, folder)
    assert found.killer, found.said
