"""Generations of several stages: one job that crosses the queues of its checkpoints."""

import json
import signal
import time
from dataclasses import replace

import pytest
from obstore.store import MemoryStore
from prometheus_client import CollectorRegistry
from rq import Worker
from rq.job import JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from server.broker import control, keys
from server.metrics import WorkerMetrics
from server.spec import Failure, GenerationState, Warn
from server.storage import ObjectImageStore
from server.workers import ledger as ledgers
from server.workers.engine import Engine
from server.workers.ledger import DEATHS_BEFORE_ALONE, Ledger, Refusal, Rescue
from server.workers.link import connect
from server.workers.simulated import SimulatedDenoiser
from server.workers.stage import Ended
from server.workers.studio import EngineStudio
from tests.builders import a_hires, a_refiner, an_upscaler
from tests.queue.crew import ThreadWorker, short, until
from tests.queue.faults import Gate, GatedRedis
from tests.queue.scripted import ScriptedStudio, done, handed


def chain(desk, **changes):
    """A generation that a base, a refiner and an upscaler draw one after the other."""
    return desk.submit(refiner=a_refiner(), upscaler=an_upscaler(), **changes)


def a_ledger(server, redis, checkpoint: str = "demo") -> Ledger:
    return ThreadWorker(short(server.url), ScriptedStudio(), redis, checkpoint)._ledger


def claim(ledger: Ledger):
    return ledger.claim(ledger.pop(1.0), room=4, empty=True).claim


@pytest.fixture
def base(server, redis) -> Ledger:
    return a_ledger(server, redis)


@pytest.fixture
def refining(server, redis) -> Ledger:
    return a_ledger(server, redis, "refiner")


@pytest.fixture
def slow(server):
    with GatedRedis.from_url(server.url) as redis:
        yield redis


def test_a_chain_crosses_the_queues_of_its_checkpoints(desk, crew):
    workers = {name: crew.thread(checkpoint=name) for name in desk.queues}
    id = chain(desk, num_images=2)
    seen = []
    for number, (name, worker) in enumerate(workers.items()):
        until(lambda worker=worker: id in worker.studio.claims)
        claimed = worker.studio.claims[id]
        record = desk.record(id)
        assert (claimed.number, claimed.stage.checkpoint) == (number, name)
        assert (record.stage_number, record.checkpoint, record.status) == (number, name, "running")
        assert desk.registries(name)["started"] == [id]
        assert desk.job(id).origin == name
        assert list(claimed.handed) == seen
        seen = list(handed(claimed).keys)
        worker.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")
    record = desk.record(id)
    assert [each.steps for each in record.stage_metrics] == [4, 4, 4]
    assert record.metrics.steps == record.progress.steps_done == 12
    assert record.metrics.denoise_seconds == pytest.approx(0.3)
    assert desk.states(id) == 3 * ["queued", "running"] + ["succeeded"]
    assert [data for event, data in desk.events(id) if event == "stage"] == [
        {"number": 1, "checkpoint": "refiner"},
        {"number": 2, "checkpoint": "upscaler"},
    ]
    assert desk.registries("upscaler")["finished"] == [id]
    [result] = Result.all(desk.job(id), serializer=JSONSerializer)
    assert result.worker_name == workers["upscaler"].name
    desk.assert_clean()


def test_rq_tells_of_one_job_that_changes_its_queue(desk, base):
    id = chain(desk)
    claimed = claim(base)
    assert base.finish(claimed, handed(claimed))
    job = desk.job(id)
    assert (job.get_status(), job.origin) == (JobStatus.QUEUED, "refiner")
    assert (job.started_at, job.worker_name) == (None, None)
    assert desk.queues["refiner"].get_job_ids() == [id]
    assert b"rq:queue:refiner" in desk.redis.smembers("rq:queues")
    assert desk.queue.get_job_ids() == desk.registries()["started"] == []
    assert desk.registries()["finished"] == []
    assert list(desk.redis.scan_iter("darkroom:lease:*")) == []


def test_hires_fix_comes_back_to_the_queue_it_left(desk, crew):
    worker = crew.thread(ScriptedStudio(ticks=2))
    id = desk.submit(hires=a_hires())
    until(lambda: desk.status(id) == "succeeded")
    assert [c.stage.spec.width for c in worker.studio.admitted] == [128, 256]
    assert desk.record(id).images[0].width == 256
    desk.assert_clean()


def test_what_was_handed_on_goes_before_those_that_have_not_begun(desk, base):
    waiting = desk.submit(checkpoint="refiner")
    id = chain(desk)
    claimed = claim(base)
    base.finish(claimed, handed(claimed))
    assert [desk.next("refiner") for _ in range(2)] == [id, waiting]


def test_between_two_stages_it_is_queued_where_the_next_one_is_drawn(desk, base):
    id = chain(desk)
    begun = claim(base).started_at
    claimed = base._offered.claim
    base.finish(claimed, handed(claimed))
    record = desk.record(id)
    assert (record.status, record.checkpoint, record.started_at) == ("queued", "refiner", begun)
    assert record.progress.steps_done == 4
    assert record.progress.steps_total == 4 + 1 + 4  # a quarter of the refiner's, the upscaler's
    assert [list(keys) for keys in record.handed] == [handed(claimed).keys]


def test_progress_goes_on_where_the_stage_before_has_ended(desk, crew):
    base, refiner = crew.thread(), crew.thread(checkpoint="refiner")
    id = chain(desk)
    until(lambda: id in base.studio.claims)
    base.studio.steps[id] = 2
    until(lambda: desk.record(id).progress.steps_done == 2)
    assert desk.record(id).progress.steps_total == 10 + 1 + 4
    base.studio.end(id)
    until(lambda: id in refiner.studio.claims)
    refiner.studio.steps[id] = 3
    until(lambda: desk.record(id).progress.steps_done == 4 + 3)
    told = [data["steps_done"] for event, data in desk.events(id) if event == "progress"]
    assert told == sorted(told)


def test_what_the_stages_warned_of_is_kept_together(desk, server, redis):
    id = chain(desk)
    said = [Warn(code=name, message="words were cut") for name in desk.queues]
    for number, name in enumerate(desk.queues):
        ledger = a_ledger(server, redis, name)
        claimed = claim(ledger)
        result = done(claimed)
        repeated = said[:1] if number == 2 else []
        ledger.finish(claimed, replace(result, warnings=[*repeated, said[number]]))
        assert desk.record(id).warnings == tuple(said[: number + 1])
    assert desk.status(id) == "succeeded"


def test_each_stage_has_waited_since_it_joined_its_own_queue(desk, base, refining):
    desk.submit(refiner=a_refiner(), created_at=time.time() - 50)
    first = claim(base)
    assert first.queue_seconds == pytest.approx(50, abs=5)
    base.finish(first, handed(first))
    assert claim(refining).queue_seconds == pytest.approx(0, abs=5)


def test_what_a_stage_was_handed_is_discarded_once_its_end_is_written(desk, crew):
    base, refiner = crew.thread(), crew.thread(checkpoint="refiner")
    id = desk.submit(refiner=a_refiner())
    until(lambda: id in base.studio.claims)
    base.studio.end(id)
    until(lambda: id in refiner.studio.claims)
    assert base.studio.discarded == refiner.studio.discarded == []
    refiner.studio.end(id)
    until(lambda: refiner.studio.discarded == handed(base.studio.admitted[0]).keys)
    assert desk.status(id) == "succeeded"


class Told:
    """In a ledger's place where it discards: what, and what the record said at that moment."""

    def __init__(self, desk, id: str, *ledgers: Ledger):
        self.desk, self.id = desk, id
        self.keys, self.states = [], []
        for ledger in ledgers:
            ledger._discard = self

    def __call__(self, keys):
        self.keys += keys
        self.states.append(self.desk.status(self.id))


def between_stages(desk, base, **changes) -> tuple[str, list[str]]:
    """A chain whose first stage is done, and what was handed on."""
    id = chain(desk, **changes)
    claimed = claim(base)
    result = handed(claimed)
    assert base.finish(claimed, result)
    return id, list(result.keys)


def test_a_canceled_generation_that_is_claimed_leaves_nothing_in_the_store(desk, base, refining):
    id, keys_of_base = between_stages(desk, base)
    told = Told(desk, id, refining)
    desk.redis.hset(keys.generation(id), "cancel_requested", 1)
    assert refining.claim(refining.pop(1.0), room=4, empty=True).state == "canceled"
    assert (told.keys, told.states) == (keys_of_base, ["canceled"])


def test_one_that_is_overdue_when_it_is_claimed_leaves_nothing_in_the_store(desk, base, refining):
    id, keys_of_base = between_stages(
        desk, base, created_at=time.time() - 3.8, deadline_seconds=4.0
    )
    told = Told(desk, id, refining)
    time.sleep(0.2)
    assert refining.claim(refining.pop(1.0), room=4, empty=True).state == "expired"
    assert (told.keys, told.states) == (keys_of_base, ["expired"])


def test_one_that_fails_leaves_nothing_of_any_of_its_stages(desk, base, refining, server, redis):
    id, of_base = between_stages(desk, base)
    last = a_ledger(server, redis, "upscaler")
    claimed = claim(refining)
    result = handed(claimed)
    assert refining.finish(claimed, result)
    told = Told(desk, id, last)
    error = Failure(code="not_finite", message="the model produced NaN")
    last.finish(claim(last), Ended(GenerationState.FAILED, error))
    assert told.keys == [*of_base, *result.keys]
    assert told.states == ["failed"]


def test_a_stage_that_is_tried_again_after_a_fault_still_has_what_it_starts_from(
    desk, base, server, redis
):
    refiner = ThreadWorker(short(server.url), ScriptedStudio(), redis, "refiner")
    chain(desk)
    before = claim(base)
    base.finish(before, handed(before))
    faulty = claim(refiner._ledger)
    fault = Ended(GenerationState.FAILED, Failure(code="x", message="a fault"), fault=True)
    assert refiner._ledger.finish(faulty, fault) == "queued"
    assert refiner.studio.discarded == []
    refiner._ledger.bring_forward(faulty.id)
    again = claim(refiner._ledger)
    assert again.handed == faulty.handed
    refiner._ledger.finish(again, handed(again))
    assert refiner.studio.discarded == list(faulty.handed)


def test_one_that_is_quarantined_leaves_nothing_in_the_store(desk, base, refining):
    id, keys_of_base = between_stages(desk, base)
    told = Told(desk, id, refining)
    for _ in range(DEATHS_BEFORE_ALONE + 1):
        assert told.keys == []  # it is drawn again from them
        claimed = claim(refining)
        desk.redis.delete(keys.lease(claimed.execution))
        refining.rescue(id, claimed.execution)
    assert (told.keys, told.states) == (keys_of_base, ["failed"])


def test_what_is_not_handed_on_after_all_is_discarded_too(desk, base):
    id = chain(desk)
    told = Told(desk, id, base)
    claimed = claim(base)
    control.cancel(desk.redis, id, retention=600)
    result = handed(claimed)
    assert base.finish(claimed, result)
    assert (told.keys, told.states) == (result.keys, ["canceled"])


def test_a_zombie_discards_nothing(desk, base, refining):
    id, _ = between_stages(desk, base)
    stale = claim(refining)
    told = Told(desk, id, refining)
    desk.redis.delete(keys.lease(stale.execution))
    refining.rescue(id, stale.execution)
    fresh = claim(refining)
    assert refining.finish(stale, handed(stale)) is None
    assert told.keys == []
    assert refining.finish(fresh, handed(fresh))
    assert told.keys == list(fresh.handed)


def test_a_forged_record_discards_nothing_of_others(desk, base, refining):
    id, _ = between_stages(desk, base)
    told = Told(desk, id, refining)
    forged = json.dumps([["another/stage-0-0-e.png"]])
    desk.redis.hset(keys.generation(id), "handed", forged)
    assert refining.claim(refining.pop(1.0), room=4, empty=True).state == "failed"
    assert told.keys == []


def test_canceled_between_two_stages_it_ends_at_once(desk, base):
    id = chain(desk)
    claimed = claim(base)
    base.finish(claimed, handed(claimed))
    ended = control.cancel(desk.redis, id, retention=600)
    assert list(ended.leftovers) == handed(claimed).keys
    assert control.cancel(desk.redis, id, retention=600) is None
    assert desk.status(id) == "canceled"
    assert desk.registries("refiner")["canceled"] == [id]
    desk.assert_clean()


def test_canceled_in_its_second_stage_it_stops_within_a_beat(desk, crew):
    base, refiner = crew.thread(ScriptedStudio(ticks=1)), crew.thread(checkpoint="refiner")
    id = chain(desk)
    until(lambda: id in refiner.studio.claims)
    control.cancel(desk.redis, id, retention=600)
    until(lambda: desk.status(id) == "canceled", seconds=1)
    assert refiner.studio.canceled == [id]
    assert base.studio.canceled == []
    assert desk.registries("refiner")["canceled"] == [id]
    desk.assert_clean()


@pytest.mark.parametrize("how", ["canceled", "deleted", "canceled in RQ"])
def test_what_nobody_wants_any_more_is_not_handed_on(desk, base, how):
    id = chain(desk)
    claimed = claim(base)
    if how == "canceled":
        control.cancel(desk.redis, id, retention=600)
    elif how == "deleted":
        control.remove(desk.redis, desk.record(id), retention=600)
    else:
        desk.job(id).cancel()
    assert base.finish(claimed, handed(claimed))
    assert desk.job(id).get_status() is JobStatus.CANCELED
    assert how == "deleted" or desk.status(id) == "canceled"
    desk.assert_clean()


def test_a_cancel_that_comes_while_it_is_handed_on_is_heard(desk, server, slow):
    mine = a_ledger(server, slow)
    id = chain(desk)
    claimed = claim(mine)
    gate = Gate(slow, lambda: mine.finish(claimed, handed(claimed)))
    control.cancel(desk.redis, id, retention=600)
    assert gate.open() is not None
    assert desk.status(id) == "canceled"
    desk.assert_clean()


def test_one_past_its_deadline_expires_between_two_stages(desk, base, crew):
    id = chain(desk, created_at=time.time() - 3.8, deadline_seconds=4.0)
    claimed = claim(base)
    base.finish(claimed, handed(claimed))
    time.sleep(0.2)
    refiner = crew.thread(checkpoint="refiner")
    until(lambda: desk.status(id) == "expired")
    assert refiner.studio.admitted == []
    desk.assert_clean()


def test_one_that_fails_in_its_second_stage_is_not_drawn_by_the_third(desk, base, refining):
    id = chain(desk)
    first = claim(base)
    base.finish(first, handed(first))
    error = Failure(code="not_finite", message="the model produced NaN")
    refining.finish(claim(refining), Ended(GenerationState.FAILED, error))
    assert desk.record(id).error == error
    assert desk.registries("refiner")["failed"] == [id]
    desk.assert_clean()


def test_a_stage_whose_worker_died_is_drawn_again_from_what_it_was_handed(desk, crew):
    base = crew.thread(ScriptedStudio(ticks=1))
    victim = crew.process(checkpoint="refiner")
    id = chain(desk)
    until(lambda: desk.job(id).worker_name not in (None, base.name))
    until(lambda: desk.status(id) == "running")
    begun = desk.record(id).started_at
    victim.send_signal(signal.SIGKILL)
    rescuer = crew.thread(checkpoint="refiner")
    until(lambda: id in rescuer.studio.claims)
    assert len(base.studio.admitted) == 1
    assert rescuer.studio.claims[id].handed == tuple(handed(base.studio.admitted[0]).keys)
    assert desk.record(id).started_at == begun
    assert desk.record(id).progress.steps_done == 4
    assert desk.redis.hget(desk.job(id).key, keys.DEATHS) == b"1"


def test_deaths_are_counted_stage_by_stage(desk, base, refining):
    id = chain(desk)
    desk.redis.hset(desk.job(id).key, keys.DEATHS, DEATHS_BEFORE_ALONE)
    first = claim(base)
    base.finish(first, handed(first))
    for deaths in range(DEATHS_BEFORE_ALONE + 1):
        got = refining.claim(refining.pop(1.0), room=4, empty=True)
        assert got.alone == (deaths == DEATHS_BEFORE_ALONE)
        desk.redis.delete(keys.lease(got.claim.execution))
        outcome = refining.rescue(id, got.claim.execution)
    assert outcome is Rescue.QUARANTINED
    assert desk.registries("refiner")["failed"] == [id]
    desk.assert_clean()


def test_a_drained_worker_hands_its_stage_back_to_the_queue_of_that_stage(desk, crew):
    crew.thread(ScriptedStudio(ticks=1))
    refiner = crew.process(checkpoint="refiner", drain_seconds=0.1)
    id = chain(desk)
    until(lambda: desk.redis.scard(keys.workers("refiner")))
    until(lambda: desk.registries("refiner")["started"] == [id])
    refiner.send_signal(signal.SIGTERM)
    assert refiner.wait(timeout=10) == 0
    assert desk.queues["refiner"].get_job_ids() == [id]
    assert (desk.status(id), desk.record(id).progress.steps_done) == ("queued", 4)


def test_a_zombie_hands_nothing_on(desk, base, server, redis):
    id = chain(desk)
    stale = claim(base)
    desk.redis.delete(keys.lease(stale.execution))
    base.rescue(id, stale.execution)
    fresh = claim(base)
    assert base.finish(stale, handed(stale)) is None
    assert base.finish(fresh, handed(fresh))
    assert base.finish(stale, handed(stale)) is None
    assert list(desk.record(id).handed[0]) == handed(fresh).keys
    assert desk.queues["refiner"].get_job_ids() == [id]


def test_a_handing_on_whose_reply_was_lost_happens_once(desk, server, proxy):
    with connect(proxy.url) as redis:
        unlucky = a_ledger(server, redis)
        id = chain(desk)
        claimed = claim(unlucky)
        proxy.swallow = 1
        assert unlucky.finish(claimed, handed(claimed))
        assert proxy.swallowed == 1
    assert desk.queues["refiner"].get_job_ids() == [id]
    assert desk.record(id).stage_number == 1
    assert desk.states(id) == ["queued", "running", "queued"]


def test_a_slow_rescuer_loses_to_the_one_that_hands_on(desk, base, server, slow):
    other = a_ledger(server, slow)
    id = chain(desk)
    claimed = claim(base)
    desk.redis.delete(keys.lease(claimed.execution))
    gate = Gate(slow, lambda: other.rescue(id, claimed.execution))
    assert base.finish(claimed, handed(claimed))
    assert gate.open() is Rescue.CLEARED
    assert desk.queues["refiner"].get_job_ids() == [id]
    assert desk.queue.get_job_ids() == []


@pytest.mark.parametrize("where", ["queue", "intermediate list"])
def test_a_leftover_id_in_the_queue_it_came_from_is_dropped(desk, base, refining, where):
    id = chain(desk)
    claimed = claim(base)
    base.finish(claimed, handed(claimed))
    if where == "queue":
        desk.redis.rpush(desk.queue.key, id)
        assert base.claim(base.pop(1.0), room=4, empty=True) is Refusal.LEFTOVER
    else:
        desk.redis.rpush(desk.queue.intermediate_queue_key, id)
        assert base.restore(id) is False
    assert desk.status(id) == "queued"
    assert desk.queue.get_job_ids() == desk.intermediate() == []
    assert claim(refining).id == id


@pytest.mark.parametrize(
    ("handed_on", "message"),
    [
        ('[["another/picture.png"]]', "not of this generation"),
        ("[[]]", "not of this generation"),
        ('[["a"],["b"],["c"]]', "not valid"),
        ("7", "not valid"),
    ],
)
def test_a_forged_handing_on_fails_in_words(desk, base, refining, handed_on, message):
    id = chain(desk)
    claimed = claim(base)
    base.finish(claimed, handed(claimed))
    desk.redis.hset(keys.generation(id), "handed", handed_on)
    ended = refining.claim(refining.pop(1.0), room=4, empty=True)
    assert message in ended.error.message
    assert desk.redis.hget(keys.generation(id), "status") == b"failed"


@pytest.mark.parametrize("dies", ["before handing on", "after handing on"])
def test_a_chain_survives_the_death_of_its_worker_while_it_hands_on(desk, crew, dies):
    id = chain(desk)
    victim = crew.process(studio={"ticks": 1}, dies=dies)
    assert victim.wait(timeout=20) == -signal.SIGKILL
    assert desk.record(id).stage_number == (dies == "after handing on")
    workers = [crew.thread(ScriptedStudio(ticks=1), checkpoint=name) for name in desk.queues]
    until(lambda: desk.status(id) == "succeeded")
    drawn_again = [worker.counts["claimed"] for worker in workers]
    assert drawn_again == ([1, 1, 1] if dies == "before handing on" else [0, 1, 1])
    assert desk.states(id)[-1] == "succeeded"
    assert len(Result.all(desk.job(id), serializer=JSONSerializer)) == 1
    desk.assert_clean()


def test_rq_counts_what_each_worker_has_done_for_a_chain(desk, crew):
    workers = [crew.thread(ScriptedStudio(ticks=1), checkpoint=name) for name in desk.queues]
    id = chain(desk)
    until(lambda: desk.status(id) == "succeeded")
    seen = {w.name: w for w in Worker.all(connection=desk.redis, serializer=JSONSerializer)}
    assert [seen[worker.name].successful_job_count for worker in workers] == [1, 1, 1]


@pytest.fixture
def draw(crew):
    """Workers that draw in earnest, but for the model, and share a store."""
    store = ObjectImageStore(MemoryStore())

    def hire(checkpoint):
        studio = EngineStudio(
            Engine(SimulatedDenoiser(), max_step_pixels=10**9),
            store,
            capacity=4,
            worker=checkpoint,
            version="1",
            metrics=WorkerMetrics(CollectorRegistry()),
            peak_memory_bytes=lambda: 0,
        )
        return crew.thread(studio, checkpoint=checkpoint)

    for checkpoint in ("demo", "refiner", "upscaler"):
        hire(checkpoint)
    return store


def files(store, id: str) -> list[str]:
    return sorted(each["path"] for batch in store._store.list(id) for each in batch)


def test_pictures_and_latents_cross_the_store_and_only_the_images_stay(desk, draw):
    ids = [chain(desk, num_images=2, hires=a_hires(), seed=seed) for seed in range(3)]
    until(lambda: desk.all_ended(ids))
    for id in ids:
        record = desk.record(id)
        assert [each.worker for each in record.stage_metrics] == [
            "demo",
            "demo",
            "refiner",
            "upscaler",
        ]
        assert record.metrics.worker == "upscaler"
        assert record.progress.steps_done == record.progress.steps_total == 2 * 4 * 4
        assert [(image.width, image.height) for image in record.images] == 2 * [(1024, 1024)]
        wanted = sorted(image.key for image in record.images)
        until(lambda id=id, wanted=wanted: files(draw, id) == wanted)
    desk.assert_clean()


def test_a_chain_that_fails_leaves_no_file(desk, draw, monkeypatch):
    def broken(self, state, prediction):
        if state.spec.checkpoint == "upscaler":
            raise ValueError("it cannot")
        state.steps_done += 1

    monkeypatch.setattr(SimulatedDenoiser, "advance", broken)
    monkeypatch.setattr(ledgers, "RETRY_SECONDS", (0.05,))
    id = chain(desk, num_images=2)
    until(lambda: desk.status(id) == "failed")
    assert desk.record(id).error.message.endswith("(ValueError); its log has the details")
    until(lambda: files(draw, id) == [])


def test_what_is_gone_from_the_store_fails_the_stage_that_needs_it(desk, draw, monkeypatch):
    put = ObjectImageStore.put
    forget = lambda self, key, data: put(self, key, data) if "stage-" not in key else None  # noqa: E731
    monkeypatch.setattr(ObjectImageStore, "put", forget)
    id = chain(desk)
    until(lambda: desk.status(id) == "failed")
    assert "what stage 0 made of image 0 is no longer in the image store" in (
        desk.record(id).error.message
    )
    assert desk.registries("refiner")["failed"] == [id]
