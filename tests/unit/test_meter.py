"""What a worker says of its speed, as steps come in."""

import pytest

from server.forecast import Load, Speed
from server.stages import stages
from server.workers.engine import Step
from server.workers.meter import Meter
from tests.builders import a_spec

SPEED = Speed(native_pixels=128 * 128, curve=((2, 0.1),), full_rows=2)
STAGE = stages(a_spec(guidance_scale=4.0, num_inference_steps=10))[0]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def meter(clock):
    return Meter(SPEED, clock)


def step(meter, clock, *, seconds, pause=0.0, decode_seconds=0.0, times=200):
    for _ in range(times):
        clock.now += pause + seconds + decode_seconds
        meter.stepped(
            Step(rows=2, pixels=128 * 128, seconds=seconds, decode_seconds=decode_seconds)
        )


def test_a_device_that_has_become_slower_says_so(meter, clock):
    assert meter.duration(STAGE) == pytest.approx(1.0)
    step(meter, clock, seconds=0.2)
    assert meter.speed.drift == pytest.approx(2.0, rel=0.01)
    assert meter.duration(STAGE) == pytest.approx(1.0), "it may be as quick again as it was"
    assert meter.total([meter.load(STAGE)]).work_seconds == pytest.approx(2.0, rel=0.01)


def test_what_passes_between_two_steps_counts_but_a_rest_does_not(meter, clock):
    step(meter, clock, seconds=0.1, pause=0.05)
    assert meter.speed.drift == pytest.approx(1.5, rel=0.01)
    meter.rest()
    clock.now += 1000
    step(meter, clock, seconds=0.1, times=1)
    assert meter.speed.drift < 1.6


def test_decoding_is_no_part_of_a_step(meter, clock):
    step(meter, clock, seconds=0.1, decode_seconds=5.0)
    assert meter.speed.drift == pytest.approx(1.0)


def test_what_shallow_steps_take_is_learned_apart_from_all_others(meter, clock):
    cached = stages(a_spec(guidance_scale=4.0, num_inference_steps=10, cache_interval=5))[0]
    assert meter.duration(cached) == pytest.approx(1.0), "nothing is known of them yet"
    for seconds in (0.5, *200 * [0.02]):
        clock.now += seconds
        meter.stepped(Step(rows=2, pixels=128 * 128, seconds=seconds, shallow=True))
    assert (meter.speed.drift, meter.speed.shallow) == (1.0, pytest.approx(0.2, rel=0.01))
    assert meter.duration(cached) == pytest.approx(0.2 + 8 * 0.02, rel=0.01)
    assert meter.load(cached).work_seconds == pytest.approx(0.2 + 8 * 0.02, rel=0.01)
    assert meter.duration(STAGE) == pytest.approx(1.0)


def test_a_picture_that_did_not_fit_is_the_bound_for_as_long_as_it_counts():
    too_large, measured = None, SPEED.model_copy(update={"largest_pixels": 512 * 512})
    meters = [Meter(speed, too_large=lambda: too_large) for speed in (SPEED, measured)]
    assert [meter.speed.largest_pixels for meter in meters] == [0, 512 * 512]
    too_large = 256 * 256
    assert [meter.speed.largest_pixels for meter in meters] == 2 * [256 * 256 - 1]
    too_large = None
    assert [meter.speed.largest_pixels for meter in meters] == [0, 512 * 512]


def test_a_new_measure_takes_the_place_of_the_old_one_but_for_what_fits(clock):
    meter = Meter(SPEED.model_copy(update={"largest_pixels": 512 * 512}), clock)
    step(meter, clock, seconds=0.05)
    meter.adopt(SPEED.model_copy(update={"curve": ((2, 0.05),), "largest_pixels": 1}))
    assert (meter.speed.drift, meter.speed.largest_pixels) == (1.0, 512 * 512)
    assert meter.duration(STAGE) == pytest.approx(0.5)


def test_without_a_measure_nothing_is_said():
    meter = Meter(None)
    meter.stepped(Step(rows=2, pixels=1, seconds=1.0))
    assert (meter.speed, meter.load(STAGE), meter.duration(STAGE)) == (None, Load(), 0)
