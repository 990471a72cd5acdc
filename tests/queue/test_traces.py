"""What a worker tells of what it draws: each attempt of each stage, in the trace of its request."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from obstore.store import MemoryStore
from prometheus_client import CollectorRegistry

from server.broker import control, keys
from server.metrics import WorkerMetrics
from server.spec import Failure, GenerationState
from server.storage import ImageStore, ObjectImageStore
from server.tracing import Context, Tracer, open_tracer
from server.workers import ledger as ledgers
from server.workers.engine import Engine
from server.workers.simulated import SimulatedDenoiser
from server.workers.stage import Ended
from server.workers.studio import EngineStudio
from tests.builders import a_refiner
from tests.collector import GOOD, SPAN, TRACE, Collector, Seen, collecting
from tests.queue.crew import Crew, until
from tests.queue.scripted import ScriptedStudio

PHASES = ["encode", "denoise", "decode", "publish"]
FAULT = Ended(
    GenerationState.FAILED, Failure(code="generation_failed", message="a fault"), fault=True
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def tracer(collector: Collector) -> Iterator[Tracer]:
    tracer = open_tracer(collector.url, 1.0, service="darkroom-worker", instance="test")
    yield tracer
    tracer.close()


def a_studio(store: ImageStore | None = None, step_seconds: float = 0.0) -> EngineStudio:
    """That draws in earnest, but for the model."""
    denoiser = SimulatedDenoiser(lambda rows: step_seconds)
    return EngineStudio(
        Engine(denoiser, max_step_pixels=10**9),
        store or ObjectImageStore(MemoryStore()),
        capacity=4,
        worker="drawing",
        version="1",
        metrics=WorkerMetrics(CollectorRegistry()),
        peak_memory_bytes=lambda: 0,
    )


def told(collector: Collector, tracer: Tracer, *workers) -> list[Seen]:
    """All that is told of the generation, once these workers have gone."""
    for worker in workers:
        worker.stop()
    tracer.close()
    assert {span.trace for span in collector.spans} <= {TRACE}
    return [span for span in collector.spans if span.parent == SPAN]


def test_a_drawn_generation_is_its_wait_and_its_drawing_phase_by_phase(
    desk, crew, collector, tracer
):
    worker = crew.thread(a_studio(), tracer=tracer)
    id = desk.submit(traceparent=GOOD, num_images=2)
    until(lambda: desk.status(id) == "succeeded")
    queue, draw = sorted(told(collector, tracer, worker), key=lambda span: span.began)
    assert (queue.name, draw.name, draw.kind) == ("queue demo", "draw demo", "consumer")
    assert collector.children(draw) == PHASES
    assert [queue.error, draw.error] == [None, None]
    assert draw["darkroom.outcome"] == "succeeded"
    for span in (queue, draw):
        assert span["darkroom.generation"] == id
        assert span["darkroom.worker"] == worker.name
        assert (span["darkroom.stage"], span["darkroom.attempt"]) == (1, 1)
        assert (span["darkroom.checkpoint"], span["darkroom.num_images"]) == ("demo", 2)
    denoise = collector.one("denoise")
    assert (denoise["darkroom.steps"], denoise["darkroom.mean_batch_rows"]) == (8, 4.0)
    record = desk.record(id)
    assert queue.ended == pytest.approx(record.started_at, abs=1e-3)
    assert queue.began <= queue.ended == draw.began
    phases = [collector.one(name) for name in PHASES]
    ends = [draw.began, *(edge for each in phases for edge in (each.began, each.ended)), draw.ended]
    assert ends == sorted(ends), "one after the other, within the drawing"


def test_what_fails_is_an_error_by_its_code(desk, crew, collector, tracer):
    worker = crew.thread(tracer=tracer)
    id = desk.submit(traceparent=GOOD)
    until(lambda: id in worker.studio.claims)
    failure = Failure(code="not_finite", message="a red circle on a blue background is NaN")
    worker.studio.end(id, Ended(GenerationState.FAILED, failure))
    until(lambda: desk.status(id) == "failed")
    _, draw = told(collector, tracer, worker)
    assert (draw.error, draw["error.type"]) == ("not_finite", "not_finite")
    assert draw["darkroom.outcome"] == "failed"
    assert b"circle" not in b"".join(collector.raw)


def test_what_is_canceled_while_it_is_drawn_says_so_and_how_far_it_was(
    desk, crew, collector, tracer
):
    worker = crew.thread(a_studio(step_seconds=0.01), tracer=tracer)
    id = desk.submit(traceparent=GOOD, num_inference_steps=100_000)
    until(lambda: worker.studio.pulse().step_rows)
    control.cancel(desk.redis, id, retention=600)
    until(lambda: desk.status(id) == "canceled")
    _, draw = told(collector, tracer, worker)
    assert (draw.error, draw["darkroom.outcome"]) == ("canceled", "canceled")
    assert collector.children(draw) == ["encode", "denoise"]


def test_each_stage_of_a_chain_waits_and_is_drawn_in_the_same_trace(desk, crew, collector, tracer):
    store = ObjectImageStore(MemoryStore())
    workers = [
        crew.thread(a_studio(store=store), checkpoint=name, tracer=tracer)
        for name in ("demo", "refiner")
    ]
    id = desk.submit(traceparent=GOOD, refiner=a_refiner())
    until(lambda: desk.status(id) == "succeeded")
    spans = told(collector, tracer, *workers)
    by_time = sorted(spans, key=lambda span: (span.began, span.ended))
    names = [span.name for span in by_time]
    assert names == ["queue demo", "draw demo", "queue refiner", "draw refiner"]
    assert [span["darkroom.stage"] for span in by_time] == [1, 1, 2, 2]
    draws = by_time[1::2]
    assert [span["darkroom.outcome"] for span in draws] == ["handed_on", "succeeded"]
    assert [collector.children(span) for span in draws] == [PHASES, PHASES]
    assert {span.error for span in spans} == {None}
    assert by_time[2].began >= by_time[0].ended


def test_a_fault_and_what_it_is_tried_again_for_are_two_attempts(
    desk, crew, collector, tracer, monkeypatch
):
    monkeypatch.setattr(ledgers, "RETRY_SECONDS", (0.05,))
    worker = crew.thread(tracer=tracer)
    id = desk.submit(traceparent=GOOD)
    until(lambda: id in worker.studio.claims)
    worker.studio.end(id, FAULT)
    until(lambda: worker.counts["claimed"] == 2 and id in worker.studio.claims)
    worker.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")
    told(collector, tracer, worker)
    first, second = collector.named("draw demo")
    assert (first["darkroom.attempt"], second["darkroom.attempt"]) == (1, 2)
    assert (first["darkroom.outcome"], first.error) == ("tried_again", "generation_failed")
    assert (second["darkroom.outcome"], second.error) == ("succeeded", None)
    _, again = collector.named("queue demo")
    assert first.began < again.began < second.began == again.ended, "it waits anew"


def test_what_a_dead_worker_held_is_an_attempt_told_by_whoever_took_it_over(
    desk, crew, collector, tracer
):
    victim = crew.process()
    id = desk.submit(traceparent=GOOD)
    until(lambda: desk.status(id) == "running")
    dead = desk.job(id).worker_name
    victim.send_signal(signal.SIGKILL)
    rescuer = crew.thread(ScriptedStudio(ticks=1), tracer=tracer)
    until(lambda: desk.status(id) == "succeeded")
    told(collector, tracer, rescuer)
    lost, drawn = collector.named("draw demo")
    assert (lost["darkroom.worker"], drawn["darkroom.worker"]) == (dead, rescuer.name)
    assert (lost["darkroom.outcome"], lost.error) == ("taken_over", "taken_over")
    assert (lost["darkroom.attempt"], drawn["darkroom.attempt"]) == (1, 2)
    assert (drawn["darkroom.outcome"], drawn.error) == ("succeeded", None)
    assert lost.began < lost.ended <= drawn.began
    first, again = collector.named("queue demo")
    assert first.ended == lost.began
    assert again.began >= lost.began


def test_what_is_handed_back_at_a_stop_is_an_attempt_without_an_error(
    desk, crew, collector, tracer
):
    leaving = crew.thread(tracer=tracer)
    id = desk.submit(traceparent=GOOD)
    until(lambda: id in leaving.studio.claims)
    leaving.stop()
    heir = crew.thread(ScriptedStudio(ticks=1), tracer=tracer)
    until(lambda: desk.status(id) == "succeeded")
    told(collector, tracer, heir)
    back, drawn = collector.named("draw demo")
    assert (back["darkroom.outcome"], back.error) == ("handed_back", None)
    assert drawn["darkroom.outcome"] == "succeeded"
    assert {back["darkroom.attempt"], drawn["darkroom.attempt"]} == {1}, (
        "nobody died, nothing broke"
    )


def test_what_came_too_late_to_be_drawn_has_waited_for_nothing(desk, crew, collector, tracer):
    id = desk.submit(traceparent=GOOD, created_at=1_700_000_000.0, deadline_seconds=4.0)
    worker = crew.thread(tracer=tracer)
    until(lambda: desk.status(id) == "expired")
    [queue] = told(collector, tracer, worker)
    assert (queue.name, queue.error) == ("queue demo", "deadline_exceeded")
    assert queue["darkroom.outcome"] == "expired"


@pytest.mark.parametrize("carried", ["", "not one", "00-" + "0" * 200, GOOD.replace("00-", "ff-")])
def test_what_carries_no_trace_is_drawn_all_the_same(desk, crew, collector, tracer, carried):
    worker = crew.thread(ScriptedStudio(ticks=1), tracer=tracer)
    id = desk.submit(traceparent=carried)
    until(lambda: desk.status(id) == "succeeded")
    assert worker.studio.admitted[0].context is None
    assert told(collector, tracer, worker) == []
    assert collector.spans == []


def test_what_somebody_wrote_over_a_trace_costs_nobody_a_picture(desk, crew, collector, tracer):
    id = desk.submit(traceparent=GOOD)
    desk.redis.hset(keys.generation(id), "traceparent", b"\xff\x00" * 100_000)
    worker = crew.thread(ScriptedStudio(ticks=1), tracer=tracer)
    until(lambda: desk.status(id) == "succeeded")
    assert told(collector, tracer, worker) == []


def test_a_worker_without_tracing_leaves_the_context_to_the_next(desk, crew, collector, tracer):
    """As one of an earlier version does, while workers are replaced one by one."""
    without = crew.thread(ScriptedStudio(ticks=1))
    refining = crew.thread(ScriptedStudio(ticks=1), checkpoint="refiner", tracer=tracer)
    id = desk.submit(traceparent=GOOD, refiner=a_refiner())
    until(lambda: desk.status(id) == "succeeded")
    spans = told(collector, tracer, without, refining)
    assert {span.name for span in spans} == {"queue refiner", "draw refiner"}
    assert desk.record(id).traceparent == GOOD


def test_each_line_about_a_generation_names_its_trace(
    desk, crew: Crew, collector, tracer, caplog, monkeypatch
):
    caplog.set_level(logging.INFO, "darkroom")
    victim = crew.process()
    id = desk.submit(traceparent=GOOD)
    until(lambda: desk.status(id) == "running")
    victim.send_signal(signal.SIGKILL)
    worker = crew.thread(a_studio(), tracer=tracer)
    until(lambda: desk.status(id) == "succeeded")
    told(collector, tracer, worker)
    lines = [vars(record) for record in caplog.records if "generation" in vars(record)]
    messages = {line["message"] for line in lines}
    assert messages >= {"claimed", "succeeded", "taken over: its worker died or went silent"}
    assert {(line["generation"], line["trace"]) for line in lines} == {(id, TRACE)}
    assert "circle" not in caplog.text


def test_a_prompt_that_is_refused_while_it_is_prepared_is_not_logged(
    desk, crew, caplog, monkeypatch
):
    from server.errors import InvalidSpec

    def refuse(self, stage, index, inputs):
        raise InvalidSpec(f"prompt is longer than 77 tokens; cut off: {stage.spec.prompt}")

    caplog.set_level(logging.DEBUG, "darkroom")
    monkeypatch.setattr(SimulatedDenoiser, "prepare", refuse)
    crew.thread(a_studio())
    id = desk.submit(prompt="a very private circle")
    until(lambda: desk.status(id) == "failed")
    assert "private" in desk.record(id).error.message, "its caller is told"
    assert "could not be prepared: invalid_spec" in caplog.text
    assert "private" not in caplog.text


def test_a_context_is_what_the_first_worker_reads(desk, crew):
    worker = crew.thread()
    id = desk.submit(traceparent=GOOD)
    until(lambda: id in worker.studio.claims)
    assert worker.studio.admitted[0].context == Context.read(GOOD)


def test_a_tracer_that_fails_costs_nobody_a_picture(
    desk, crew, tracer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no spans today")

    monkeypatch.setattr(tracer, "begin", fail)
    crew.thread(ScriptedStudio(ticks=1), tracer=tracer)
    id = desk.submit(traceparent=GOOD)
    until(lambda: desk.status(id) == "succeeded")
    until(lambda: "cannot be traced" in caplog.text)
    assert "an attempt cannot be traced" in caplog.text
