"""What does not fit is tried with more room, then with less in it, and nothing is lost."""

import gc
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest

from server.errors import OutOfMemory
from server.workers.ladder import RECOVERY_SECONDS, Bound, Ladder, Remedy


@dataclass
class Held:
    state: Any
    id: str = "gen"


@dataclass
class Device:
    """Takes so much at a time; kept things take some of it until room is made."""

    room: int
    kept: int = 0
    calls: list[list[int]] = field(default_factory=list)

    def __call__(self, states):
        self.calls.append(list(states))
        if sum(states) > self.room - self.kept:
            raise OutOfMemory("full")
        return [-state for state in states]

    def make_room(self):
        self.kept = 0


def a_bound(most=1000, clock=lambda: 0.0):
    return Bound("a step", most, lambda held: held.state, clock)


def climbed(device, sizes, bound=None):
    """What came of each, and what was done for it."""
    ladder = Ladder(device.make_room)
    done = ladder.climb(device, [Held(size) for size in sizes], bound or a_bound())
    return [error or result for _, result, error in done], ladder.remedies()


def test_what_fits_beside_nothing_is_not_made_smaller():
    device, bound = Device(10, kept=5), a_bound()
    assert climbed(device, [3, 3], bound) == ([-3, -3], [Remedy.RETRIED])
    assert device.calls == [[3, 3], [3, 3]]
    assert bound.pixels == 1000


def test_room_is_made_once_and_then_halves_are_tried():
    device, bound = Device(5), a_bound()
    results, remedies = climbed(device, [2, 2, 2, 2], bound)
    assert results == [-2, -2, -2, -2]
    assert remedies == [Remedy.RETRIED, Remedy.SPLIT]
    assert device.calls == [[2, 2, 2, 2], [2, 2, 2, 2], [2, 2], [2, 2]]
    assert bound.pixels == 4


def test_who_does_not_fit_alone_fails_alone():
    results, remedies = climbed(Device(5), [2, 9, 2, 2])
    assert results[0] == results[2] == results[3] == -2
    assert isinstance(results[1], OutOfMemory)
    assert remedies == [Remedy.RETRIED, Remedy.SPLIT, Remedy.SPLIT, Remedy.FAILED]


def test_a_fault_of_another_kind_makes_no_room_and_lowers_nothing():
    def refusing(states):
        if 3 in states:
            raise ValueError("three")
        return states

    ladder, bound = Ladder(lambda: pytest.fail("room was made")), a_bound()
    done = ladder.climb(refusing, [Held(size) for size in (1, 2, 3, 4)], bound)
    assert [str(error) for _, _, error in done if error] == ["three"]
    assert (ladder.remedies(), bound.pixels) == ([], 1000)


def test_what_did_not_fit_holds_nothing_while_its_neighbours_are_tried():
    class Tensor:
        """Something large."""

    large = []

    def tight(states):
        gc.collect()
        assert all(each() is None for each in large)
        tensor = Tensor()
        large.append(weakref.ref(tensor))
        raise OutOfMemory("full")

    done = Ladder(lambda: None).climb(tight, [Held(1), Held(2), Held(3)], a_bound())
    assert len(large) == 1 + 1 + 1 + 2 + 1
    assert all(error.__traceback__ is None for _, _, error in done)


def test_remedies_are_told_once():
    ladder = Ladder(lambda: None)
    ladder.climb(Device(1), [Held(2)], a_bound())
    assert ladder.remedies() == [Remedy.RETRIED, Remedy.FAILED]
    assert ladder.remedies() == []


def test_a_bound_comes_back_in_quiet_step_by_step():
    now = 0.0
    bound = a_bound(1000, lambda: now)
    bound.lower([Held(200), Held(400)])
    seen = []
    for _ in range(4):
        bound.recover()
        seen.append(bound.pixels)
        now += RECOVERY_SECONDS
    assert seen == [300, 600, 1000, 1000]


def test_a_bound_that_is_lowered_again_waits_again():
    now = 0.0
    bound = a_bound(1000, lambda: now)
    bound.lower([Held(800)])
    now = RECOVERY_SECONDS - 1
    bound.lower([Held(400)])
    now = RECOVERY_SECONDS + 1
    bound.recover()
    assert bound.pixels == 200


def test_another_bound_holds_at_once_but_what_did_not_fit_is_not_tried():
    now = 0.0
    bound = a_bound(1000, lambda: now)
    bound.allow(4000)
    assert bound.pixels == 4000
    bound.lower([Held(1000)])
    bound.allow(8000)
    assert bound.pixels == 500
    now = RECOVERY_SECONDS
    bound.recover()
    assert bound.pixels == 1000
    bound.allow(200)
    assert bound.pixels == 200
