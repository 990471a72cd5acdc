"""Predictions against an engine that takes exactly the time it was measured to take."""

import pytest

from server import forecast
from server.forecast import Speed
from server.pixels import Inputs
from server.stages import stages
from server.workers.engine import Engine, Ticket
from server.workers.simulated import SimulatedDenoiser
from tests.builders import a_spec

NATIVE = 128 * 128
SPEED = Speed(native_pixels=NATIVE, curve=((2, 0.010), (4, 0.012), (8, 0.016)), full_rows=8)


def a_stage(**changes):
    return stages(a_spec(**({"guidance_scale": 4.0} | changes)))[0]


class ClockedDenoiser(SimulatedDenoiser):
    """Its calls move a clock as the speed says."""

    now = 0.0

    def predict(self, states):
        rows = sum(SPEED.native_rows(s.rows, s.pixels) for s in states)
        self.now += SPEED.step_seconds(rows)
        return [s.seed for s in states]


def drawn(stages, together=8):
    """Seconds until all are drawn, and each of them, by an engine that holds so many tickets."""
    denoiser = ClockedDenoiser()
    engine = Engine(denoiser, max_step_pixels=SPEED.full_rows * NATIVE, clock=lambda: denoiser.now)
    waiting, ends = [(i, stage) for i, stage in enumerate(stages)], {}
    while waiting or engine.busy:
        while waiting and engine.in_flight < together:
            i, stage = waiting.pop(0)
            state = denoiser.prepare(stage, 0, Inputs())
            engine.admit(Ticket(str(i), 0, state, priority=0, deadline=1e9))
        for outcome in engine.step().outcomes:
            ends[int(outcome.ticket.id)] = denoiser.now
    return [ends[i] for i in range(len(stages))]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 6, 8, 16])
def test_a_step_takes_what_was_measured_and_in_between_what_lies_between(rows):
    expected = {1: 0.010, 2: 0.010, 3: 0.011, 4: 0.012, 6: 0.014, 8: 0.016, 16: 0.032}
    assert SPEED.step_seconds(rows) == pytest.approx(expected[rows])


def test_pixels_count_as_rows_by_the_measured_exponent():
    steep = SPEED.model_copy(update={"exponent": 1.5})
    assert steep.native_rows(2, 4 * NATIVE) == pytest.approx(16)
    assert steep.native_rows(2, NATIVE) == 2


def test_a_correction_counts_for_every_step():
    slower = SPEED.model_copy(update={"drift": 2.0})
    assert slower.step_seconds(4) == 2 * SPEED.step_seconds(4)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_inference_steps": 10},
        {"num_inference_steps": 7, "guidance_scale": 1.0},
        {"width": 256, "height": 256},
        {"sampler": "heun", "num_inference_steps": 5},
    ],
)
def test_alone_it_takes_as_long_as_predicted(changes):
    stage = a_stage(**changes)
    calls = stage.expected_steps
    rows = SPEED.native_rows(2 if stage.spec.guided else 1, stage.spec.width * stage.spec.height)
    assert forecast.duration(stage, SPEED) == pytest.approx(calls * SPEED.step_seconds(rows))


def test_in_a_full_device_work_adds_up_to_the_time_it_takes():
    many = [a_stage(num_inference_steps=steps) for steps in (5, 20, 10, 40, 15, 30) * 8]
    predicted = sum(forecast.work(stage, SPEED) for stage in many)
    assert max(drawn(many)) == pytest.approx(predicted, rel=0.1)


def test_several_images_share_calls_as_far_as_that_gains_anything():
    one, four, eight = (a_stage(num_images=n, num_inference_steps=10) for n in (1, 4, 8))
    assert forecast.duration(four, SPEED) == pytest.approx(10 * SPEED.step_seconds(8))
    assert forecast.duration(eight, SPEED) == 2 * forecast.duration(four, SPEED)
    assert forecast.work(four, SPEED) == pytest.approx(4 * forecast.work(one, SPEED))


def test_workers_that_differ_count_by_what_they_get_done():
    slower = SPEED.model_copy(update={"drift": 3.0})
    one, both = (forecast.demand(a_stage(), speeds, 4) for speeds in ([SPEED], [SPEED, slower]))
    assert both.work == pytest.approx(1.5 * one.work)


def test_what_a_stage_asks_for_depends_on_how_many_a_worker_holds():
    stage = a_stage(num_inference_steps=10)
    two, four, eight = (forecast.demand(stage, [SPEED], capacity) for capacity in (2, 4, 8))
    assert (four.rows, four.company, four.alone) == (2, 6, pytest.approx(0.10))
    assert two.company == 2
    assert four.shared == eight.shared == pytest.approx(10 * SPEED.step_seconds(8))
    assert eight.company == 6, "what a call is full with is all that is drawn at once"
    assert forecast.demand(stage, [], 4) == forecast.Demand()


@pytest.mark.parametrize(
    ("asked", "pixels", "fits"),
    [((1024, 1024), 700 * 700, (696, 696)), ((2048, 1024), 512 * 512, (720, 360))],
)
def test_the_largest_size_keeps_the_shape(asked, pixels, fits):
    assert forecast.largest_size(*asked, pixels, 8) == fits
