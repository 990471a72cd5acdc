"""What a busy machine has disturbed is measured again, but only while there is nothing to draw."""

import logging
from queue import Empty, SimpleQueue

import pytest
from obstore.store import MemoryStore
from prometheus_client import CollectorRegistry

from server.catalog import load_catalog
from server.errors import OutOfMemory
from server.metrics import WorkerMetrics
from server.storage import ObjectImageStore
from server.workers import remeasuring
from server.workers.calls import Calls
from server.workers.engine import Engine, Step
from server.workers.meter import Meter
from server.workers.remeasuring import Remeasuring
from server.workers.stage import Drawn
from server.workers.studio import EngineStudio
from server.workers.warmup import WarmUp
from tests.builders import a_claim
from tests.queue.crew import until
from tests.unit.test_warmup import NATIVE, ClockedDenoiser, NoGauge

ROWS = 32


def quiet(rows):
    """The more share a step the better."""
    return 1e-3 + 1e-5 * rows


def busy(rows):
    """Something else takes the machine as soon as more than four rows are drawn."""
    return quiet(rows) if rows <= 4 else 1.0


class Inbox:
    """Nothing comes for so many waits; then something does, and stays for whoever asks."""

    def __init__(self, waits):
        self.left, self.pauses = waits, []

    def empty(self):
        return self.left > 0

    def get(self, timeout=None):
        if timeout is not None:
            self.pauses.append(timeout)
            if self.left > 0:
                self.left -= 1
                raise Empty
        return "work"


class Worker:
    """All that is told of a new measure."""

    def __init__(self, curve, *, full_rows=None, idle=lambda: True, inbox=2):
        self.denoiser = ClockedDenoiser(curve)
        clock, card = lambda: self.denoiser.now, load_catalog()["demo"]
        self.warm_up = WarmUp(self.denoiser, card, ROWS, NoGauge(), full_rows, clock)
        speed = self.warm_up.run().model_copy(update={"largest_pixels": 7})
        self.engine = Engine(self.denoiser, max_step_pixels=speed.full_rows * NATIVE)
        self.meter = Meter(speed, clock)
        self.calls, self.inbox = Calls(), Inbox(inbox)
        self.again = Remeasuring(
            self.warm_up, self.engine, self.meter, self.calls, idle=idle, dice=lambda: 0.5
        )
        self.denoiser.rows.clear()

    def rest(self):
        """Until work comes."""
        assert self.again.next(self.inbox) == "work"

    def slow_down(self, times):
        """So many times what was measured."""
        for _ in range(200):
            seconds = times * self.meter._measured.step_seconds(2)
            self.denoiser.now += seconds
            self.meter.stepped(Step(rows=2, pixels=NATIVE, seconds=seconds))


def test_a_measure_that_cannot_be_right_is_replaced_in_the_first_quiet_pause(caplog):
    caplog.set_level(logging.INFO)
    worker = Worker(busy)
    assert "8 rows took 9" in caplog.text
    assert worker.engine.max_step_pixels == 4 * NATIVE
    worker.denoiser.curve = quiet
    worker.slow_down(3)
    worker.rest()
    assert worker.inbox.pauses == [1.5 * remeasuring.IDLE_SECONDS]
    assert worker.engine.max_step_pixels == ROWS * NATIVE
    speed = worker.meter.speed
    assert (speed.full_rows, speed.drift, speed.largest_pixels) == (ROWS, 1.0, 7)


def test_a_sound_measure_is_never_repeated():
    worker = Worker(quiet)
    worker.rest()
    assert worker.denoiser.rows == worker.inbox.pauses == []


@pytest.mark.parametrize(("times", "again"), [(0.7, True), (0.9, False), (1.3, False), (1.7, True)])
def test_steps_that_take_clearly_other_times_than_measured_put_it_in_doubt(times, again):
    worker = Worker(quiet)
    worker.slow_down(times)
    worker.rest()
    assert bool(worker.denoiser.rows) is again
    assert worker.meter.speed.drift == pytest.approx(1.0 if again else times, rel=0.01)


def test_it_ends_between_two_calls_when_work_comes_and_begins_anew_in_the_next_pause():
    worker = Worker(busy)
    before = worker.meter.speed

    def arriving(rows):
        if len(worker.denoiser.rows) == 3:
            worker.inbox.left = 0
        return quiet(rows)

    worker.denoiser.curve = arriving
    worker.rest()
    assert len(worker.denoiser.rows) == 3
    assert worker.meter.speed == before
    worker.denoiser.curve, worker.inbox.left = quiet, 2
    worker.rest()
    assert worker.inbox.pauses == 3 * [1.5 * remeasuring.IDLE_SECONDS]
    assert worker.meter.speed.full_rows == ROWS


def test_while_anything_is_in_flight_nothing_is_measured():
    worker = Worker(busy, idle=lambda: False)
    worker.rest()
    assert worker.denoiser.rows == []


def test_what_stays_in_doubt_is_tried_less_and_less_often_and_changes_nothing(caplog):
    worker = Worker(busy, inbox=9)
    before = worker.meter.speed
    worker.denoiser.curve = lambda rows: busy(rows) * 1.03 ** len(worker.denoiser.rows)
    worker.rest()
    assert worker.inbox.pauses[:3] == [1.5 * n * remeasuring.IDLE_SECONDS for n in (1, 2, 4)]
    assert max(worker.inbox.pauses) == 1.5 * remeasuring.LONGEST_SECONDS
    assert worker.meter.speed == before
    assert caplog.text.count("WARNING") > 2


def test_what_is_measured_twice_the_same_is_believed():
    worker = Worker(busy)
    worker.rest()
    assert len(worker.inbox.pauses) == 1
    assert worker.meter.speed.full_rows == 4


def test_what_an_operator_has_said_a_step_may_take_stays():
    worker = Worker(lambda rows: 1.0 if rows == 2 else 1e-3, full_rows=12)
    worker.denoiser.curve = quiet
    worker.rest()
    assert worker.engine.max_step_pixels == 12 * NATIVE
    assert worker.meter.speed.curve[0][1] == pytest.approx(quiet(2))


def test_a_call_that_never_returns_is_seen():
    worker = Worker(busy)
    ages = []
    worker.denoiser.wait = lambda: ages.append(worker.calls.age())
    worker.denoiser.curve = quiet
    worker.rest()
    assert all(ages)
    assert worker.calls.age() == 0


def test_what_does_not_fit_any_more_ends_no_worker(caplog):
    def full(rows):
        raise OutOfMemory("somebody else has it")

    worker = Worker(busy)
    worker.denoiser.curve = full
    worker.rest()
    assert "could not be measured again: somebody else has it" in caplog.text


def test_a_studio_measures_again_before_its_next_claim_and_draws_it_all_the_same(monkeypatch):
    monkeypatch.setattr(remeasuring, "IDLE_SECONDS", 1e-3)
    worker = Worker(busy)
    worker.denoiser.curve = quiet
    studio = EngineStudio(
        worker.engine,
        ObjectImageStore(MemoryStore()),
        capacity=4,
        worker="w",
        version="1",
        metrics=WorkerMetrics(CollectorRegistry()),
        peak_memory_bytes=lambda: 0,
        speed=worker.meter.speed,
        warm_up=worker.warm_up,
    )
    results = SimpleQueue()
    studio.start(lambda claim, result: results.put(result))
    until(lambda: studio.speed().full_rows == ROWS)
    assert worker.engine.max_step_pixels == ROWS * NATIVE
    studio.admit(a_claim("a"))
    assert isinstance(results.get(timeout=10), Drawn)
    assert studio.close(10)
