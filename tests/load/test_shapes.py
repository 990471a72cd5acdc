from __future__ import annotations

import pytest

from tests.load.shapes import SHAPES, Shape, ramp, soak, spike, users


def course(shape: Shape, most: int = 20, whole: int = 100) -> list[int]:
    """Users in each second, until it is over."""
    counts = [users(shape, most, second, whole) for second in range(whole)]
    assert None not in counts
    return [count for count in counts if count is not None]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_somebody_is_always_there_and_never_more_than_asked_for(shape: Shape) -> None:
    assert min(course(shape)) >= 1
    assert max(course(shape)) == 20


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("second", [100.0, 100.5, 1e6])
def test_it_is_over_when_the_time_is(shape: Shape, second: float) -> None:
    assert users(shape, 20, second, 100) is None


def test_a_ramp_only_rises_until_all_are_there() -> None:
    counts = course(ramp)
    assert counts == sorted(counts)
    assert counts[:1] == [1]
    assert counts[75:] == [20] * 25
    assert len(set(counts)) == 20


def test_a_spike_is_sudden_and_passes() -> None:
    assert course(spike) == [5] * 40 + [20] * 20 + [5] * 40


def test_a_soak_has_all_of_them_but_at_its_beginning() -> None:
    assert course(soak)[5:] == [20] * 95


def test_one_user_is_enough_for_any_shape() -> None:
    assert all(set(course(shape, most=1)) == {1} for shape in SHAPES.values())
