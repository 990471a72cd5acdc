"""Workers killed, frozen and sent home at random, and Redis killed, under a stream of work."""

import os
import random
import signal
import time

import pytest
from rq.results import Result
from rq.serializers import JSONSerializer

from server.broker import control
from server.spec import GenerationState
from tests.builders import a_refiner
from tests.queue.crew import until

GENERATIONS = 90
KILL_SECONDS = 0.4
SEED = "RANDOM_KILLS_SEED"


@pytest.fixture
def server(mortal_server):
    return mortal_server


@pytest.fixture
def hire(crew):
    def hire(checkpoint):
        studio = {"ticks": 8, "tick_seconds": 0.02}
        worker = crew.process(
            checkpoint=checkpoint, studio=studio, lease_seconds=0.8, drain_seconds=0.1
        )
        worker.checkpoint = checkpoint
        return worker

    return hire


def strike(workers, hire, dice) -> None:
    """One worker dies, leaves, or loses a while; never fewer than it was."""
    victim = dice.choice(workers)
    blow = dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
    for worker in workers:
        worker.send_signal(signal.SIGCONT)
    victim.send_signal(blow)
    if blow is not signal.SIGSTOP:
        workers.remove(victim)
        workers.append(hire(victim.checkpoint))


def test_everything_accepted_ends_once(server, desk, hire):
    seed = int(os.environ.get(SEED) or random.randrange(10**6))
    print(f"{SEED}={seed}")  # noqa: T201  # shown when the test fails; set it to repeat the dice
    dice = random.Random(seed)
    workers = [hire(checkpoint) for checkpoint in ("demo", "demo", "refiner", "refiner")]
    ids: list[str] = []
    struck = time.monotonic()
    while len(ids) < GENERATIONS:
        chained = {"refiner": a_refiner()} if dice.random() < 0.5 else {}
        images = dice.choice([1, 1, 2])
        ids.append(desk.submit(num_images=images, deadline_seconds=600.0, **chained))
        time.sleep(dice.random() * 0.08)  # the pace of the clients
        if dice.random() < 0.05:
            control.cancel(desk.redis, dice.choice(ids), retention=600)
        if time.monotonic() - struck > KILL_SECONDS:
            strike(workers, hire, dice)
            struck = time.monotonic()
        if len(ids) == GENERATIONS // 2:
            server.kill()
            server.start()
    for worker in workers:
        worker.send_signal(signal.SIGCONT)
    until(lambda: all(desk.record(id).terminal for id in ids), seconds=40)
    for id in ids:
        assert_ended_once(desk, id)
    for checkpoint in ("demo", "refiner"):
        until(lambda name=checkpoint: desk.registries(name)["started"] == desk.intermediate(name))
        assert desk.intermediate(checkpoint) == []
    assert desk.all_ended([id for id in ids if desk.record(id).images])


def assert_ended_once(desk, id: str) -> None:
    record = desk.record(id)
    assert sum(GenerationState(state) == record.status for state in desk.states(id)) == 1
    assert desk.events(id)[-1][0] == "done"
    results = Result.all(desk.job(id), serializer=JSONSerializer)
    assert len(results) == (record.status is not GenerationState.CANCELED)
    for image in record.images:
        assert results[0].execution_id in image.key
    if record.images:
        assert record.stage_number == (record.spec.refiner is not None)
