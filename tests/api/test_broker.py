"""The gateway's half of the queue by itself: many callers, broken records, odd messages."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from server.api.schemas import GenerationRequest
from server.broker import Broker, Generation, Place, WorkerInfo, delivery, keys
from server.broker.hub import Hub
from server.broker.leftovers import Discard, keep
from server.broker.record import total
from server.broker.submit import MAX_DEADLINE_SECONDS
from server.errors import NoWorker, Unavailable
from server.forecast import Demand
from server.spec import SPEC, Metrics, Progress, Quantization, new_generation_id
from server.stages import stages
from server.workers.stage import Claim
from tests.api.house import SPEED, Hands
from tests.builders import a_claim_of, a_refiner, a_spec, an_upscaler
from tests.redis_server import RedisServer

RETENTION = 600
SPEC_JSON = SPEC.dump_json(a_spec())
RECORD = {b"id": b"gen_1", b"owner": b"local", b"created_at": b"1.5", b"spec": SPEC_JSON}

SPEC_OF_BEFORE = (
    b'{"task":"text-to-image","checkpoint":"demo","prompt":"a red circle","negative_prompt":"",'
    b'"width":128,"height":128,"num_images":1,"num_inference_steps":20,"guidance_scale":4.0,'
    b'"guidance_rescale":0.0,"eta":0.0,"sampler":"dpmpp_2m","sigmas":"default","seed":7,'
    b'"clip_skip":0,"output_format":"png","priority":0,"deadline_seconds":3600.0}'
)
"""As the first version wrote it, to the byte: not made by today's classes."""


@pytest.fixture
def run(server: RedisServer, hands: Hands) -> Callable[..., Any]:
    """Runs what a test does with a broker."""

    @asynccontextmanager
    async def opened(discard: Discard) -> AsyncIterator[Broker]:
        broker = Broker(server.url, retention_seconds=RETENTION, discard=discard)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.close()

    def run(act: Callable[[Broker], Awaitable[Any]], discard: Discard = keep) -> Any:
        async def whole() -> Any:
            async with opened(discard) as broker:
                return await act(broker)

        return asyncio.run(whole())

    return run


def test_more_callers_than_connections_all_get_their_answer(
    run: Callable[..., Any], redis: Redis
) -> None:
    async def act(broker: Broker) -> list[Generation]:
        made, _ = await broker.submit(a_spec(), owner="local")
        looks = [broker.get(made.id, owner="local") for _ in range(150)]
        waits = [broker.wait(made.id, owner="local", seconds=0.05) for _ in range(150)]
        found = await asyncio.gather(*looks, *waits)
        assert int(redis.info("clients")["connected_clients"]) < 100  # type: ignore[index]
        return found

    assert [generation.status for generation in run(act)] == ["queued"] * 300


def test_connections_are_not_lost_to_callers_that_give_up(run: Callable[..., Any]) -> None:
    async def act(broker: Broker) -> Generation:
        made, _ = await broker.submit(a_spec(), owner="local")
        for _ in range(3):
            looks = [asyncio.create_task(broker.get(made.id, owner="local")) for _ in range(100)]
            await asyncio.sleep(0.002)
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)
        found = await asyncio.gather(*(broker.get(made.id, owner="local") for _ in range(100)))
        return found[-1]

    assert run(act).status == "queued"


def test_the_owners_list_forgets_what_can_have_no_record_any_more(
    run: Callable[..., Any], redis: Redis
) -> None:
    border = time.time() - RETENTION - MAX_DEADLINE_SECONDS
    redis.zadd(keys.owned("local"), {"gen_old": border - 10, "gen_late": border + 60})
    made, _ = run(lambda broker: broker.submit(a_spec(), owner="local"))
    assert redis.zrange(keys.owned("local"), 0, -1) == [b"gen_late", made.id.encode()]


def test_no_request_can_ask_for_a_longer_deadline_than_the_list_remembers() -> None:
    field = GenerationRequest.model_json_schema()["properties"]["deadline_seconds"]
    assert field["anyOf"][0]["maximum"] == MAX_DEADLINE_SECONDS


def test_a_record_without_what_may_be_missing_is_read() -> None:
    generation = Generation.from_hash(RECORD)
    assert (generation.warnings, generation.images, generation.status) == ((), (), "queued")


def test_a_record_of_before_there_were_stages_is_at_its_first() -> None:
    generation = Generation.from_hash(RECORD | {b"spec": SPEC_OF_BEFORE})
    assert (generation.stage_number, generation.checkpoint) == (0, "demo")
    assert generation.stage == stages(generation.spec)[0]
    assert (generation.stage_metrics, generation.queued_at) == ((), None)


def test_a_spec_is_stored_without_the_shortcuts_it_does_not_take() -> None:
    """So that workers of before can draw it; what it does take they refuse."""
    recorded = Generation.from_hash(RECORD)
    plain, quick = (
        recorded.model_copy(update={"spec": a_spec(cache_interval=each)}).to_hash()["spec"]
        for each in (1, 3)
    )
    assert not {"guidance_end", "cache_interval"} & json.loads(plain).keys()
    assert json.loads(quick)["cache_interval"] == 3
    assert SPEC.validate_json(plain) == a_spec()


def some_metrics(**changes: Any) -> Metrics:
    numbers = dict.fromkeys(Metrics.model_fields, 1.0)
    fields = numbers | {"steps": 4, "worker": "a", "quantization": Quantization.NONE}
    return Metrics(**(fields | {"peak_memory_bytes": 5} | changes))


def test_the_metrics_of_stages_add_up() -> None:
    stages = [some_metrics(), some_metrics(steps=12, mean_batch_rows=5.0, worker="b")]
    whole = total([*stages, some_metrics(steps=0, peak_memory_bytes=3, worker="c")])
    assert (whole.denoise_seconds, whole.total_seconds, whole.steps) == (3.0, 3.0, 16)
    assert whole.mean_batch_rows == (4 * 1.0 + 12 * 5.0) / 16
    assert (whole.peak_memory_bytes, whole.worker) == (5, "c")


def test_every_checkpoint_of_a_chain_must_be_served(
    run: Callable[..., Any], hands: Hands, redis: Redis
) -> None:
    spec = a_spec(refiner=a_refiner(), upscaler=an_upscaler())
    submit = lambda broker: broker.submit(spec, owner="local")  # noqa: E731
    for lacking in ("refiner", "upscaler"):
        with pytest.raises(NoWorker, match=f"'{lacking}'"):
            run(submit)
        assert redis.exists("rq:queue:demo") == 0
        hands.serve(lacking)
    generation, made = run(submit)
    assert made
    assert redis.lrange("rq:queue:demo", 0, -1) == [generation.id.encode()]


def test_an_id_made_before_is_kept_and_accepted_once(run: Callable[..., Any], redis: Redis) -> None:
    id = new_generation_id()

    async def act(broker: Broker) -> list[str]:
        answers = [await broker.submit(a_spec(), owner="local", id=id) for _ in range(2)]
        return [generation.id for generation, _ in answers]

    assert run(act) == [id, id]
    assert redis.llen("rq:queue:demo") == 1


def handed_on(redis: Redis, claim: Claim) -> None:
    """As the worker of the first stage writes it."""
    with redis.pipeline() as pipe:
        pipe.lrem("rq:queue:demo", 1, claim.id)
        pipe.rpush("rq:queue:refiner", "another", claim.id)
        delivery.handed_on(
            pipe,
            claim.id,
            at=time.time(),
            checkpoint="refiner",
            handed=[[f"{claim.id}/stage-0-0-e.png"]],
            progress=Progress(steps_done=4, steps_total=5),
            stage_metrics=[some_metrics()],
            warnings=(),
        )
        pipe.execute()


def test_between_two_stages_its_place_is_in_the_queue_of_the_next(
    run: Callable[..., Any], hands: Hands, redis: Redis
) -> None:
    hands.serve("refiner")
    spec = a_spec(refiner=a_refiner())

    async def act(broker: Broker) -> tuple[Generation, Place | None, list[str], Generation]:
        made, _ = await broker.submit(spec, owner="local")
        handed_on(redis, a_claim_of(spec, made.id))
        generation = await broker.get(made.id, owner="local")
        place = await broker.place(generation, Demand())
        canceled = await broker.cancel(made.id, owner="local")
        stream = broker.events(made.id, after="0", idle_seconds=60)
        events = [event.event async for event in stream if event is not None]
        return generation, place, events, canceled

    generation, place, events, canceled = run(act)
    assert (generation.status, generation.checkpoint) == ("queued", "refiner")
    assert place == Place(1, 0.0, 0.0)
    assert generation.progress.fraction == 0.8
    assert events == ["state", "stage", "state", "state", "done"]
    assert canceled.status == "canceled"
    assert redis.lrange("rq:queue:refiner", 0, -1) == [b"another"]


def test_one_that_is_overdue_between_two_stages_expires_when_somebody_looks(
    run: Callable[..., Any], hands: Hands, redis: Redis
) -> None:
    hands.serve("refiner")
    spec = a_spec(refiner=a_refiner(), deadline_seconds=0.2)

    async def act(broker: Broker) -> Generation:
        made, _ = await broker.submit(spec, owner="local")
        handed_on(redis, a_claim_of(spec, made.id))
        return await broker.wait(made.id, owner="local", seconds=3)

    assert run(act).status == "expired"
    assert redis.lrange("rq:queue:refiner", 0, -1) == [b"another"]


@pytest.mark.parametrize("how", ["canceled", "expired"])
def test_ended_between_two_stages_it_leaves_nothing_in_the_store(
    run: Callable[..., Any], hands: Hands, redis: Redis, how: str
) -> None:
    hands.serve("refiner")
    spec = a_spec(refiner=a_refiner(), deadline_seconds=0.2 if how == "expired" else 60)
    discarded: list[tuple[bytes | None, str]] = []

    async def discard(*stored: str) -> None:
        id = stored[0].partition("/")[0]
        state: Any = redis.hget(keys.generation(id), "status")
        discarded.extend((state, key.removeprefix(id)) for key in stored)

    async def act(broker: Broker) -> Generation:
        made, _ = await broker.submit(spec, owner="local")
        handed_on(redis, a_claim_of(spec, made.id))
        if how == "canceled":
            return await broker.cancel(made.id, owner="local")
        return await broker.wait(made.id, owner="local", seconds=3)

    assert run(act, discard).status == how
    assert discarded == [(how.encode(), "/stage-0-0-e.png")]


def test_a_store_that_refuses_to_delete_keeps_nobody_from_canceling(
    run: Callable[..., Any], hands: Hands, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    hands.serve("refiner")
    spec = a_spec(refiner=a_refiner())

    async def refuse(*stored: str) -> None:
        raise Unavailable("the image store refuses to delete")

    async def act(broker: Broker) -> Generation:
        made, _ = await broker.submit(spec, owner="local")
        handed_on(redis, a_claim_of(spec, made.id))
        return await broker.cancel(made.id, owner="local")

    assert run(act, refuse).status == "canceled"
    assert "left in the store: the image store refuses to delete" in caplog.text


JSON_FIELDS = [
    "warnings",
    "drawing_warnings",
    "images",
    "metrics",
    "stage_metrics",
    "handed",
    "spec",
]


@pytest.mark.parametrize("name", JSON_FIELDS)
@pytest.mark.parametrize("value", [b"", b"7", b"[7]", b'"x"', b"{", b"\xff", b"[" * 100_000])
def test_a_broken_record_is_a_value_error(name: str, value: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any kind of it)
        Generation.from_hash(RECORD | {name.encode(): value})


@pytest.mark.parametrize(
    "broken", [{}, {b"\xff": b""}, RECORD | {b"steps_done": b"x"}, RECORD | {b"status": b"\xff"}]
)
def test_what_is_no_record_is_a_value_error(broken: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any kind of it)
        Generation.from_hash(broken)


def test_what_a_newer_worker_says_of_itself_is_passed_over() -> None:
    worker = WorkerInfo(
        name="w",
        checkpoint="demo",
        device="cpu",
        state="ready",
        capacity=4,
        in_flight=0,
        speed=SPEED,
        work_seconds=1.5,
    )
    said = {name.encode(): value.encode() for name, value in worker.to_hash().items()}
    assert WorkerInfo.from_hash(said | {b"new": b"field"}) == worker


def test_a_broker_closes_however_soon(server: RedisServer) -> None:
    async def act() -> None:
        for turns in range(20):
            broker = Broker(server.url, retention_seconds=RETENTION)
            await broker.start()
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.wait_for(broker.close(), 5)

    asyncio.run(act())


async def listening(redis: Redis, changed: asyncio.Event) -> None:
    """Until the hub has heard of a change. It may have subscribed before anybody watched."""
    while not redis.publish(keys.CHANGES, "gen_1 state"):
        await asyncio.sleep(0.01)
    await asyncio.wait_for(changed.wait(), 30)
    changed.clear()


def test_an_odd_message_wakes_nobody_and_ends_nothing(
    run: Callable[..., Any], redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(broker: Broker) -> None:
        with broker.hub.watch("gen_1") as changed:
            await listening(redis, changed)
            redis.publish(keys.CHANGES, b"\xff\xfe gen_1")
            redis.publish(keys.CHANGES, "gen_1 done")
            await asyncio.wait_for(changed.wait(), 30)

    run(act)
    assert caplog.text == ""


def test_who_waits_for_the_end_is_not_woken_by_each_step(
    run: Callable[..., Any], redis: Redis
) -> None:
    async def act(broker: Broker) -> None:
        with broker.hub.watch("gen_1", "done") as ended, broker.hub.watch("gen_1") as changed:
            await listening(redis, changed)
            ended.clear()  # by the subscription
            redis.publish(keys.CHANGES, "gen_1 progress")
            await asyncio.wait_for(changed.wait(), 30)
            assert not ended.is_set()
            redis.publish(keys.CHANGES, "gen_1 done")
            await asyncio.wait_for(ended.wait(), 30)

    run(act)


def test_a_process_that_ends_still_tells_what_has_happened(
    run: Callable[..., Any], hands: Hands
) -> None:
    async def act(broker: Broker) -> list[str]:
        generation, _ = await broker.submit(a_spec(), owner="local")
        broker.hub.release()
        stream = broker.events(generation.id, after="0", idle_seconds=60)
        return [event.event async for event in stream if event is not None]

    assert run(act) == ["state"]


def test_an_unexpected_error_is_logged_and_the_subscription_made_again(
    run: Callable[..., Any],
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(hub: Hub, id: str) -> None:
        raise KeyError("unexpected")

    async def act(broker: Broker) -> None:
        with broker.hub.watch("gen_1") as changed:
            await listening(redis, changed)
            with monkeypatch.context() as patched:
                patched.setattr(Hub, "_wake", fail)
                redis.publish(keys.CHANGES, "gen_1 done")
                await asyncio.wait_for(changed.wait(), 30)  # subscribed again
            changed.clear()
            redis.publish(keys.CHANGES, "gen_1 done")
            await asyncio.wait_for(changed.wait(), 30)

    with caplog.at_level(logging.ERROR):
        run(act)
    assert "KeyError: 'unexpected'" in caplog.text
