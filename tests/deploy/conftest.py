"""The chart as it is rendered, once for each file of values/."""

from __future__ import annotations

import pytest

from tests.deploy.helm import Manifest, rendered

VALUES = ("minimal", "demo", "full")


@pytest.fixture(scope="session")
def charts() -> dict[str, list[Manifest]]:
    """By file."""
    return {name: rendered(name) for name in VALUES}


@pytest.fixture(params=VALUES)
def chart(request: pytest.FixtureRequest, charts: dict[str, list[Manifest]]) -> list[Manifest]:
    """Each, one after the other."""
    return charts[request.param]


@pytest.fixture
def full(charts: dict[str, list[Manifest]]) -> list[Manifest]:
    """Two checkpoints on GPUs, and all that there is around them."""
    return charts["full"]


@pytest.fixture
def demo(charts: dict[str, list[Manifest]]) -> list[Manifest]:
    """The demo checkpoint on the CPU, with a Redis and secrets that the chart makes."""
    return charts["demo"]
