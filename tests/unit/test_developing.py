"""What is no picture is decoded once more, and what came of it is said."""

from dataclasses import dataclass

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from server.errors import NotFinite
from server.metrics import WorkerMetrics
from server.pixels import Inputs
from server.workers.calls import Calls
from server.workers.developing import Developer
from server.workers.engine import Ticket
from server.workers.flight import Flight, heed
from server.workers.simulated import SimulatedDenoiser
from tests.builders import a_claim


@dataclass
class Came:
    """A picture as it came out of an autoencoder."""

    level: int = 7
    blank: bool = False
    finite: bool = True

    def array(self):
        if not self.finite:
            raise NotFinite("NaN")
        return np.full((8, 8, 3), self.level, np.uint8)


NAN, BLANK, GOOD = Came(finite=False), Came(0, blank=True), Came(9)


class Darkroom:
    """Develops pictures; `again` is what float32 makes of each that is none."""

    def __init__(self, *pictures, again=None):
        self.registry, self.calls, self.again = CollectorRegistry(), Calls(), again
        self.metrics = WorkerMetrics(self.registry)
        self.asked = []
        claim, denoiser = a_claim("a", num_images=len(pictures)), SimulatedDenoiser()
        states = [denoiser.prepare(claim.stage, i, Inputs()) for i in range(len(pictures))]
        tickets = [Ticket("a", index, state, 0, 1e12) for index, state in enumerate(states)]
        self.flight = Flight(claim, tickets=tickets, pictures=dict(enumerate(pictures)))

    def decode_again(self, state):
        self.asked.append(state.seed)
        self.age = self.calls.age()
        if isinstance(self.again, Exception):
            raise self.again
        return self.again

    def develop(self):
        return Developer(self.decode_again, self.calls, self.metrics).develop(self.flight)

    def counted(self, found):
        return self.registry.get_sample_value("darkroom_decoded_again_total", {"found": found})


def test_what_is_a_picture_is_not_decoded_twice():
    room = Darkroom(Came(1), Came(2))
    made, warnings = room.develop()
    assert [pixels[0, 0, 0] for pixels in made] == [1, 2]
    assert (room.asked, warnings) == ([], ())


@pytest.mark.parametrize("bad", [NAN, BLANK])
def test_what_float32_mends_is_shown_and_its_neighbours_are_let_be(bad):
    room = Darkroom(Came(1), bad, Came(3), again=GOOD)
    made, [warning] = room.develop()
    assert [pixels[0, 0, 0] for pixels in made] == [1, 9, 3]
    assert room.asked == [2]
    assert warning.code == "decoded_in_float32"
    assert "image 1" in warning.message
    assert room.counted("picture") == 1
    assert room.age > 0, "a decode that hangs must be noticed"


@pytest.mark.parametrize(("bad", "again"), [(BLANK, None), (BLANK, BLANK), (NAN, BLANK)])
def test_what_is_blank_in_float32_too_is_shown_with_a_warning(bad, again):
    room = Darkroom(bad, again=again)
    [pixels], [warning] = room.develop()
    assert not pixels.any()
    assert warning.code == "blank_picture"
    assert room.counted("blank") == 1
    heed(True, [warning])  # nothing of what was asked was lost


@pytest.mark.parametrize(
    ("bad", "again"), [(NAN, None), (NAN, NAN), (BLANK, NAN), (BLANK, NotFinite("the latents"))]
)
def test_what_is_no_picture_in_float32_either_fails(bad, again):
    room = Darkroom(Came(1), bad, again=again)
    with pytest.raises(NotFinite):
        room.develop()
    assert room.counted("not_finite") == 1
