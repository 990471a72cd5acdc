"""`darkroom queue` as a table."""

from __future__ import annotations

import pytest

from server.queueing import _row, duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0421, "0.042 s"),
        (2.51, "2.5 s"),
        (9.96, "10 s"),
        (42.4, "42 s"),
        (200.0, "3 min 20 s"),
        (7530.0, "2 h 5 min"),
    ],
)
def test_seconds_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_pace_is_the_share_of_the_wait() -> None:
    queue = {
        "checkpoint": "demo",
        "queued": 3,
        "running": 4,
        "ready_workers": 2,
        "draining_workers": 1,
        "wait_seconds": 16.0,
    }
    assert _row(queue) == ["demo", "3", "4", "2 (+1 leaving)", "2 s", "16 s"]


def test_what_was_never_measured_is_not_said() -> None:
    queue = dict.fromkeys(("queued", "running", "ready_workers", "draining_workers"), 0)
    assert _row(queue | {"checkpoint": "demo", "wait_seconds": None})[-2:] == ["-", "-"]
