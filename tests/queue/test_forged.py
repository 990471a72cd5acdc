"""Whoever can write to Redis can put anything in the queue. It fails in words and runs nothing."""

import json
import zlib
from pathlib import Path

import pytest
from rq import Queue
from rq.job import JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from server.broker import keys
from tests.builders import a_hires
from tests.queue.crew import until


def data(*parts):
    return zlib.compress(json.dumps(parts).encode())


def forge(desk, id: str, **fields) -> None:
    desk.redis.hset(desk.job(id).key, mapping=fields)


def words(desk, id: str) -> str:
    until(lambda: desk.status(id) == "failed")
    assert desk.registries()["failed"] == [id]
    desk.assert_clean()
    return desk.record(id).error.message


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"data": data("os.system", None, ["touch hacked"], {})}, "asks for 'os.system'"),
        ({"data": data("darkroom.draw", None, ["gen_" + 32 * "0"], {})}, "arguments"),
        ({"data": data("darkroom.draw", None, [], {})}, "arguments"),
        ({"data": data("darkroom.draw", None, 7, {})}, "arguments"),
        ({"data": data("darkroom.draw")}, "cannot be read"),
        ({"data": b"\x80\x04not json"}, "cannot be read"),
        ({"data": zlib.compress(b"cos\nsystem\n(S'touch hacked'\ntR.")}, "cannot be read"),
        ({"status": "\xff\xfe"}, "cannot be read"),
        ({"created_at": "yesterday"}, "cannot be read"),
    ],
)
def test_a_forged_job_fails_in_words(desk, crew, forged, message):
    id = desk.submit()
    forge(desk, id, **forged)
    worker = crew.thread()
    assert message in words(desk, id)
    assert worker.studio.admitted == []
    assert not Path("hacked").exists()


def test_callbacks_and_webhooks_of_a_forged_job_are_not_called(desk, crew):
    id = desk.submit()
    forge(desk, id, success_callback_name="os.system", failure_callback_name="os.system")
    worker = crew.thread()
    until(lambda: id in worker.studio.claims)
    worker.studio.end(id)
    until(lambda: desk.status(id) == "succeeded")


def test_a_job_without_a_generation_fails_in_rq_alone(desk, crew, redis):
    stock = Queue("demo", connection=redis, serializer=JSONSerializer)
    job = stock.enqueue("os.system", "touch hacked")
    crew.thread()
    until(lambda: job.get_status() is JobStatus.FAILED)
    [result] = Result.all(job, serializer=JSONSerializer)
    assert "only 'darkroom.draw' is done here" in result.exc_string
    assert not redis.exists(keys.generation(job.id))
    desk.assert_clean()


def test_a_spec_that_is_not_valid_fails_without_telling_the_prompt(desk, crew, caplog):
    id = desk.submit(prompt="a secret")
    spec = json.loads(desk.redis.hget(keys.generation(id), "spec")) | {"sampler": "a secret"}
    desk.redis.hset(keys.generation(id), "spec", json.dumps(spec))
    worker = crew.thread()
    until(lambda: desk.redis.hget(keys.generation(id), "status") == b"failed")
    error = json.loads(desk.redis.hget(keys.generation(id), "error"))
    assert error["code"] == "invalid_spec"
    assert "sampler (enum)" in error["message"]
    assert "secret" not in error["message"] + caplog.text
    assert worker.studio.admitted == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spec", "not json"),
        ("spec", "[" * 100_000),
        ("spec", "7"),
        ("spec", None),
        ("warnings", "7"),
        ("warnings", '"text"'),
        ("drawing_warnings", "null"),
        ("steps_done", "many"),
        (b"\xff", "odd"),
    ],
)
def test_a_broken_record_fails_in_words_and_the_worker_goes_on(desk, crew, field, value):
    id = desk.submit()
    record = keys.generation(id)
    if value is None:
        desk.redis.hdel(record, field)
    else:
        desk.redis.hset(record, field, value)
    worker = crew.thread()
    until(lambda: desk.redis.hget(record, "status") == b"failed")
    assert json.loads(desk.redis.hget(record, "error"))["code"] == "invalid_spec"
    after = desk.submit()
    until(lambda: after in worker.studio.claims)
    assert worker.reason == ""


@pytest.mark.parametrize(
    "sweep",
    [
        {"axes": [{"field": "sampler", "values": ["none"]}]},
        {"axes": [{"field": "guidance_scale", "values": [-1.0]}]},
        {"axes": [{"field": "seed", "values": [1]}]},
    ],
)
def test_a_sweep_that_makes_no_sense_fails_before_it_is_drawn(desk, crew, sweep):
    id = desk.submit(num_images=1 + ("seed" in str(sweep)), hires=a_hires())
    spec = json.loads(desk.redis.hget(keys.generation(id), "spec")) | {"sweep": sweep}
    desk.redis.hset(keys.generation(id), "spec", json.dumps(spec))
    worker = crew.thread()
    assert "sweep" in words(desk, id)
    assert worker.studio.admitted == []
    assert worker.reason == ""


def test_a_spec_of_another_checkpoint_fails(desk, crew):
    id = desk.submit()
    spec = json.loads(desk.redis.hget(keys.generation(id), "spec")) | {"checkpoint": "other"}
    desk.redis.hset(keys.generation(id), "spec", json.dumps(spec))
    crew.thread()
    assert "checkpoint 'other'" in words(desk, id)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"with:colon", b"", b"no-such-job"])
def test_an_id_that_names_no_job_is_dropped(desk, crew, raw):
    desk.redis.rpush(desk.queue.key, raw)
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    assert desk.intermediate() == []


def test_keys_of_the_wrong_type_do_not_stop_the_worker(desk, crew):
    desk.redis.set("rq:job:odd", "not a hash")
    desk.redis.rpush(desk.queue.key, "odd")
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    assert desk.intermediate() == []


@pytest.mark.parametrize("member", [b"\xff", b"a:b:c", b"alone", b":", b"../x:y"])
def test_a_strange_member_of_rqs_registry_does_not_stop_a_worker(desk, crew, member):
    desk.redis.zadd("rq:wip:demo", {member: 9_999_999_999})
    worker = crew.thread()
    id = desk.submit()
    until(lambda: id in worker.studio.claims)
    assert worker.reason == ""


def test_a_token_that_is_not_text_does_not_stop_a_worker(desk, crew):
    id = desk.submit()
    forge(desk, id, **{keys.HOLDER: b"\xff"})
    worker = crew.thread()
    until(lambda: id in worker.studio.claims)
    assert worker.reason == ""
