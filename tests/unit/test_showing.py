import io
import threading
from dataclasses import dataclass, field
from queue import Queue

import numpy as np
import pytest
from PIL import Image

from server.errors import NotFinite, OutOfMemory
from server.pixels import Inputs
from server.stages import Handover, Stage, shown_after
from server.workers.calls import Calls
from server.workers.engine import Engine, Preview, Ticket
from server.workers.showing import LONGEST_SIDE, Showing, small_jpeg
from server.workers.simulated import FlatPicture, SimulatedDenoiser
from tests.builders import a_claim, a_spec

SECONDS = 10
FAR = 1e12


@dataclass
class CountingDenoiser(SimulatedDenoiser):
    """Notes how many tickets share each decoding for previews."""

    sizes: list[int] = field(default_factory=list)

    def preview(self, states):
        self.sizes.append(len(states))
        return super().preview(states)


def a_ticket(seed=1, denoiser=None, gives=Handover.PICTURES, **changes):
    stage = Stage(spec=a_spec(seed=seed, **changes), gives=gives)
    state = (denoiser or SimulatedDenoiser()).prepare(stage, 0, Inputs())
    return Ticket(f"gen_{seed}", 0, state, 0, FAR)


def an_engine(*tickets, denoiser=None, **more):
    engine = Engine(denoiser or SimulatedDenoiser(), max_step_pixels=10**9, **more)
    for ticket in tickets:
        engine.admit(ticket)
    return engine


def run(engine):
    """What was shown after which turn, and what came out."""
    shown, outcomes, turn = [], [], 0
    while engine.busy:
        turn += 1
        step = engine.step()
        shown += [(turn, preview.ticket.id, preview.number) for preview in step.previews]
        outcomes += step.outcomes
    return shown, outcomes


@pytest.mark.parametrize(
    ("previews", "steps", "after"),
    [
        (0, 20, ()),
        (1, 20, (10,)),
        (3, 20, (5, 10, 15)),
        (2, 4, (1, 2)),
        (10, 4, (1, 2, 3)),
        (3, 4, (1, 2, 3)),
        (5, 1, ()),
        (5, 0, ()),
    ],
)
def test_previews_are_spread_over_the_steps_and_never_come_after_the_last(previews, steps, after):
    assert shown_after(previews, steps) == after


@pytest.mark.parametrize("previews", range(1, 11))
def test_each_preview_is_of_a_step_of_its_own(previews):
    for steps in range(2, 151):
        after = shown_after(previews, steps)
        assert len(set(after)) == len(after) == min(previews, steps - 1)
        assert after[0] >= 1
        assert after[-1] < steps


def test_a_ticket_is_shown_in_the_turn_of_its_step_and_comes_out_as_ever():
    shown, [outcome] = run(an_engine(a_ticket(previews=2, num_inference_steps=6)))
    assert shown == [(2, "gen_1", 1), (4, "gen_1", 2)]
    assert np.array_equal(outcome.picture.array(), FlatPicture(128, 128, 1).array())


def test_who_waits_for_another_size_is_not_shown_twice():
    tickets = a_ticket(1, previews=2), a_ticket(2, previews=2, width=256)
    shown, _ = run(an_engine(*tickets))
    assert sorted((id, number) for _, id, number in shown) == [
        ("gen_1", 1),
        ("gen_1", 2),
        ("gen_2", 1),
        ("gen_2", 2),
    ]


def test_what_gives_latents_shows_pictures():
    engine = an_engine(a_ticket(previews=1, gives=Handover.LATENTS))
    engine.step()
    [preview] = engine.step().previews
    assert preview.picture.array().shape == (128, 128, 3)


def test_the_device_is_not_asked_for_previews_where_nobody_wants_any():
    denoiser = CountingDenoiser()
    shown, [outcome] = run(an_engine(a_ticket(), denoiser=denoiser))
    assert (shown, outcome.error) == ([], None)
    assert denoiser.sizes == []


def test_a_preview_that_fails_is_left_out_and_its_neighbours_are_shown():
    class Refusing(SimulatedDenoiser):
        def preview(self, states):
            if any(state.seed == 2 for state in states):
                raise ValueError("decoder")
            return super().preview(states)

    tickets = [a_ticket(seed, previews=1) for seed in (1, 2, 3)]
    shown, outcomes = run(an_engine(*tickets, denoiser=Refusing()))
    assert [id for _, id, _ in shown] == ["gen_1", "gen_3"]
    assert [outcome.error for outcome in outcomes] == [None] * 3


def test_a_preview_out_of_memory_fails_nothing_and_makes_decodes_smaller():
    class Tight(SimulatedDenoiser):
        def preview(self, states):
            if len(states) > 2:
                raise OutOfMemory("too many")
            return super().preview(states)

    tickets = [a_ticket(seed, previews=1) for seed in range(8)]
    engine = an_engine(*tickets, denoiser=Tight())
    shown, outcomes = run(engine)
    assert len(shown) == len([o for o in outcomes if o.picture is not None]) == 8
    assert engine.max_decode_pixels == 2 * 128 * 128


def test_previews_are_decoded_within_the_bound_of_final_pictures():
    denoiser = CountingDenoiser()
    tickets = [a_ticket(seed, previews=1) for seed in range(5)]
    run(an_engine(*tickets, denoiser=denoiser, max_decode_pixels=2 * 128 * 128))
    assert denoiser.sizes == [2, 2, 1]


def test_what_is_larger_than_a_decode_may_be_is_drawn_but_not_shown():
    tickets = a_ticket(1, previews=1), a_ticket(2, previews=1, width=256)
    shown, outcomes = run(an_engine(*tickets, max_decode_pixels=128 * 128))
    assert [id for _, id, _ in shown] == ["gen_1"]
    assert len([outcome for outcome in outcomes if outcome.picture is not None]) == 2


def test_the_time_of_previews_counts_as_decoding():
    now = 0.0

    class Slow(SimulatedDenoiser):
        def preview(self, states):
            nonlocal now
            now += 3.0
            return super().preview(states)

    tickets = a_ticket(1, previews=2), a_ticket(2, previews=2)
    engine = an_engine(*tickets, denoiser=Slow(), clock=lambda: now)
    _, outcomes = run(engine)
    assert [outcome.ticket.decode_seconds for outcome in outcomes] == [3.0, 3.0]


def a_preview(index=0, number=1, picture=None):
    ticket = Ticket("a", index, None, 0, FAR)
    return Preview(ticket, number, picture or FlatPicture(64, 64, number))


@pytest.fixture
def told():
    return Queue()


@pytest.fixture
def showing():
    made = []

    def make(show, calls=None):
        made.append(Showing(show, calls or Calls(), lambda: None))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_preview_is_told_as_a_small_jpeg(showing, told):
    claim = a_claim("a", num_images=3)
    showing = showing(lambda *what: told.put(what))
    showing.offer(claim, a_preview(2, 4, FlatPicture(1024, 256, 7)))
    id, execution, jpeg, index, number = told.get(timeout=SECONDS)
    assert (id, execution, index, number) == ("a", claim.execution, 2, 4)
    with Image.open(io.BytesIO(jpeg)) as image:
        assert (image.format, image.size) == ("JPEG", (LONGEST_SIDE, 128))


def test_a_small_picture_stays_as_small_as_it_is():
    pixels = FlatPicture(64, 128, 7).array()
    with Image.open(io.BytesIO(small_jpeg(pixels))) as image:
        assert image.size == (64, 128)
        assert np.abs(np.asarray(image).astype(int) - pixels).max() < 8


def test_the_newest_preview_of_an_image_takes_the_place_of_one_that_waits(showing, told):
    behind = threading.Event()

    def slow(id, execution, jpeg, index, number):
        assert behind.wait(SECONDS)
        told.put((index, number))

    showing, claim = showing(slow), a_claim("a", num_images=2)
    showing.offer(claim, a_preview(0, 1))
    for number in (2, 3, 4):
        showing.offer(claim, a_preview(0, number))
        showing.offer(claim, a_preview(1, number))
    behind.set()
    seen = [told.get(timeout=SECONDS)]
    while seen[-1] != (1, 4):
        seen.append(told.get(timeout=SECONDS))
    assert (0, 4) in seen
    assert len(seen) <= 4  # whatever the thread had taken before the others came, and the newest


def test_a_preview_that_cannot_be_shown_holds_up_no_other(showing, told):
    class Broken:
        def array(self):
            raise NotFinite("not a number")

    def refuse_one(id, execution, jpeg, index, number):
        if number == 1:
            raise ConnectionError("Redis is away")
        told.put(number)

    showing, claim = showing(refuse_one), a_claim("a", num_images=3)
    showing.offer(claim, a_preview(0, 1))
    showing.offer(claim, a_preview(1, 2, Broken()))
    showing.offer(claim, a_preview(2, 3))
    assert told.get(timeout=SECONDS) == 3


def test_a_copy_from_the_device_that_hangs_is_noticed(showing, told):
    calls = Calls()

    class Timed:
        def array(self):
            told.put(calls.age())
            return FlatPicture(64, 64, 1).array()

    showing(lambda *what: None, calls).offer(a_claim("a"), a_preview(picture=Timed()))
    assert told.get(timeout=SECONDS) > 0


def test_a_stage_loses_its_previews_where_nothing_may_be_shown(showing):
    stage = Stage(spec=a_spec(previews=3))
    assert showing(lambda *what: None).allowed(stage) is stage
    assert showing(None).allowed(stage) == Stage(spec=a_spec())
