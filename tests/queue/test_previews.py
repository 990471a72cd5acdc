"""What is drawn is shown by who holds the job, and by nobody else."""

import threading
from functools import partial

import pytest
from obstore.store import MemoryStore
from prometheus_client import CollectorRegistry

from server.broker import control, keys, previews
from server.metrics import WorkerMetrics
from server.storage import ObjectImageStore
from server.workers.engine import Engine
from server.workers.ledger import Ledger
from server.workers.simulated import SimulatedDenoiser
from server.workers.studio import EngineStudio
from tests.builders import a_refiner, an_upscaler
from tests.queue.crew import ThreadWorker, short, until
from tests.queue.scripted import ScriptedStudio, drawn, handed


class Patient(SimulatedDenoiser):
    """Goes on only when what was due has been shown."""

    def __init__(self):
        super().__init__()
        self.seen = threading.Event()

    def predict(self, states):
        if states[0].previews_due:
            assert self.seen.wait(10)
        return super().predict(states)

    def show(self, *what):
        assert previews.show(*what)
        self.seen.set()


def a_ledger(server, redis, checkpoint: str = "demo") -> Ledger:
    return ThreadWorker(short(server.url), ScriptedStudio(), redis, checkpoint)._ledger


def taken(ledger: Ledger):
    return ledger.claim(ledger.pop(1.0), room=4, empty=True).claim


@pytest.fixture
def mine(server, redis) -> Ledger:
    return a_ledger(server, redis)


def show(redis, claim) -> bool:
    return previews.show(redis, claim.id, claim.execution, b"JPEG", 0, 1)


def shown(desk, id: str) -> list[dict[str, int]]:
    return [data for event, data in desk.events(id) if event == "preview"]


def test_who_holds_the_job_shows_it(desk, mine, redis):
    id = desk.submit()
    claim = taken(mine)
    assert show(redis, claim)
    assert redis.get(keys.preview(id, 0)) == b"JPEG"
    assert shown(desk, id) == [{"index": 0, "number": 1}]


def test_nothing_is_shown_after_the_end(desk, mine, redis):
    id = desk.submit()
    claim = taken(mine)
    mine.finish(claim, drawn(claim))
    assert not show(redis, claim)
    assert desk.events(id)[-1][0] == "done"


def test_nothing_is_shown_of_what_was_deleted(desk, mine, redis):
    id = desk.submit()
    claim = taken(mine)
    assert show(redis, claim)
    control.remove(redis, desk.record(id), retention=600)
    assert not show(redis, claim)
    assert not redis.exists(keys.preview(id, 0), keys.events(id))


def test_who_has_handed_it_back_shows_nothing_until_it_is_claimed_again(desk, mine, redis):
    desk.submit()
    before = taken(mine)
    mine.hand_back(before)
    assert not show(redis, before)
    again = taken(mine)
    assert (show(redis, before), show(redis, again)) == (False, True)


def test_who_has_handed_it_on_shows_nothing_any_more(desk, mine, server, redis):
    desk.submit(refiner=a_refiner())
    first = taken(mine)
    mine.finish(first, handed(first))
    assert not show(redis, first)
    assert show(redis, taken(a_ledger(server, redis, "refiner")))


def test_every_stage_of_a_chain_is_shown(desk, crew, redis):
    store = ObjectImageStore(MemoryStore())
    for checkpoint in ("demo", "refiner", "upscaler"):
        denoiser = Patient()
        studio = EngineStudio(
            Engine(denoiser, max_step_pixels=10**9),
            store,
            capacity=4,
            worker=checkpoint,
            version="1",
            metrics=WorkerMetrics(CollectorRegistry()),
            peak_memory_bytes=lambda: 1,
            show=partial(denoiser.show, redis),
        )
        crew.thread(studio, checkpoint=checkpoint)
    id = desk.submit(refiner=a_refiner(), upscaler=an_upscaler(), previews=1)
    until(lambda: desk.status(id) == "succeeded")
    kinds = [kind for kind, _ in desk.events(id) if kind in ("stage", "preview", "done")]
    assert kinds == ["preview", "stage", "preview", "stage", "preview", "done"]
