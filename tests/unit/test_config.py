import pytest
from pydantic import ValidationError

from server.config import Settings


@pytest.mark.parametrize("times", [{"beat_seconds": 1.5}, {"lease_seconds": 0.5}])
def test_beats_too_slow_for_a_lease_are_refused_in_words(times):
    with pytest.raises(ValidationError, match="at most a third of lease_seconds") as refused:
        Settings(**times)
    assert refused.value.errors()[0]["loc"] == ("beat_seconds",)


def test_a_beat_of_a_third_of_a_lease_is_enough():
    assert Settings(beat_seconds=0.5, lease_seconds=1.5).beat_seconds == 0.5
