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


def test_where_the_unet_reads_the_guidance_scale_a_guided_picture_takes_one_row():
    reads = SPEED.model_copy(update={"guided_rows": 1})
    assert forecast.native_rows(a_stage(), reads) == 1
    assert forecast.native_rows(a_stage(), SPEED) == 2


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 6, 8, 16])
def test_a_step_takes_what_was_measured_and_in_between_what_lies_between(rows):
    expected = {1: 0.010, 2: 0.010, 3: 0.011, 4: 0.012, 6: 0.014, 8: 0.016, 16: 0.032}
    assert SPEED.step_seconds(rows) == pytest.approx(expected[rows])


def test_small_pictures_take_less_than_the_least_that_was_measured_of_others():
    speed = SPEED.model_copy(update={"smallest": (0.5, 0.004)})
    seconds = [speed.step_seconds(rows) for rows in (0.25, 0.5, 1.25, 2, 3)]
    assert seconds == pytest.approx([0.004, 0.004, 0.007, 0.010, 0.011])


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


def test_rows_end_with_guidance():
    half, whole, none = (
        a_stage(num_inference_steps=20, **changes)
        for changes in ({"guidance_end": 0.45}, {}, {"guidance_scale": 1.0, "guidance_end": 0.45})
    )
    assert [forecast.native_rows(stage, SPEED) for stage in (half, whole, none)] == [1.5, 2, 1]
    assert forecast.work(half, SPEED) == pytest.approx(0.75 * forecast.work(whole, SPEED))
    many = [a_stage(num_inference_steps=20, guidance_end=0.45, seed=n) for n in range(32)]
    assert max(drawn(many, together=16)) == pytest.approx(
        sum(forecast.work(stage, SPEED) for stage in many), rel=0.1
    )


def test_a_shallow_step_counts_as_the_share_of_a_whole_one_that_was_seen():
    speed, stage = SPEED.model_copy(update={"shallow": 0.1}), a_stage(num_inference_steps=10)
    cached = a_stage(num_inference_steps=10, cache_interval=4)
    assert forecast.duration(cached, SPEED) == forecast.duration(stage, SPEED)
    assert forecast.duration(cached, speed) == pytest.approx(3.7 * SPEED.step_seconds(2))
    assert forecast.work(cached, speed) == pytest.approx(0.37 * forecast.work(stage, speed))


def test_in_a_full_device_work_adds_up_to_the_time_it_takes():
    many = [a_stage(num_inference_steps=steps) for steps in (5, 20, 10, 40, 15, 30) * 8]
    predicted = sum(forecast.work(stage, SPEED) for stage in many)
    assert max(drawn(many)) == pytest.approx(predicted, rel=0.1)


def test_decoding_takes_what_was_measured_in_as_many_calls_as_it_takes():
    known = {"decode_curve": ((NATIVE, 0.010), (2 * NATIVE, 0.014)), "decode_pixels": 2 * NATIVE}
    speed = SPEED.model_copy(update=known)
    assert [speed.decoding_seconds(n, NATIVE) for n in (1, 2, 3, 4)] == pytest.approx(
        [0.010, 0.014, 0.024, 0.028]
    )
    assert speed.decoding_seconds(1, 4 * NATIVE) == pytest.approx(0.028)
    assert speed.decoding_seconds(2, 4 * NATIVE) == pytest.approx(0.056), "one at a time"
    assert speed.decoding_seconds(8, NATIVE // 4) == pytest.approx(0.014)


def test_where_nothing_else_is_known_decoding_grows_with_the_pixels():
    speed = SPEED.model_copy(update={"decode_seconds": 0.010})
    assert speed.decoding_seconds(3, 2 * NATIVE) == pytest.approx(0.060)


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
