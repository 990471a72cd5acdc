from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.load import House, house

MILLISECONDS = 20
"""Of a step: a long generation takes a second, so that whoever cancels it is in time."""


@pytest.fixture(scope="session")
def place() -> Iterator[House]:
    """A gateway and a worker that draws without a model."""
    with house(MILLISECONDS, abandoned_seconds=0.2) as place:
        yield place
