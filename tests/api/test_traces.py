"""What the trace and the log of a request say, and what they never say."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from server import log
from server.broker import keys
from server.broker.record import Generation
from server.spec import GenerationState
from server.tracing import Context
from tests.api.house import Hands, bearer, gateway, key_of, soon, wait_until
from tests.api.receiver import SECRET, receiving
from tests.builders import a_spec
from tests.collector import GOOD, HOSTILE, SPAN, TRACE, Collector, collecting
from tests.redis_server import RedisServer

PROMPT = "a very private red circle"
ALSO_PRIVATE = "a very private blur"
BODY = {"prompt": PROMPT, "negative_prompt": ALSO_PRIVATE, "num_inference_steps": 4}


@contextmanager
def traced(
    server: RedisServer, folder: Path, **settings: Any
) -> Iterator[tuple[httpx.Client, Collector]]:
    """A gateway whose spans are all there when the block has ended."""
    with (
        collecting() as collector,
        gateway(server.url, folder, otlp_endpoint=collector.url, **settings) as client,
    ):
        yield client, collector


def submit(client: httpx.Client, **headers: str) -> str:
    answer = client.post("/v1/generations", json=BODY, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def requests_told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Lines that say how a request was answered."""
    return [record for record in caplog.records if record.name == "darkroom.api"]


def context_of(redis: Redis, id: str) -> Context:
    said: Any = redis.hget(keys.generation(id), "traceparent")
    found = Context.read(said.decode())
    assert found is not None
    return found


def test_a_generation_carries_the_trace_of_its_request(
    server: RedisServer, folder: Path, hands: Hands, redis: Redis
) -> None:
    with traced(server, folder) as (client, collector):
        id = submit(client)
        carried = context_of(redis, id)
    span = collector.one("POST /v1/generations")
    assert (span.trace, span.id, span.parent) == (carried.trace, carried.span, "")
    assert (span.kind, span.error, span.service) == ("server", None, "darkroom-gateway")
    assert span["http.request.method"] == "POST"
    assert span["http.route"] == "/v1/generations"
    assert span["http.response.status_code"] == 202
    assert span["darkroom.generation"] == id
    assert span["darkroom.checkpoint"] == "demo"
    assert span["darkroom.task"] == "text-to-image"
    assert (span["darkroom.width"], span["darkroom.height"]) == (128, 128)
    assert span["darkroom.num_inference_steps"] == 4
    assert span["darkroom.sampler"]


def test_a_callers_own_trace_goes_on(
    server: RedisServer, folder: Path, hands: Hands, redis: Redis
) -> None:
    with traced(server, folder, trace_ratio=0.0) as (client, collector):
        carried = context_of(redis, submit(client, traceparent=GOOD))
        submit(client)
    span = collector.one("POST /v1/generations")
    assert (span.trace, span.parent) == (TRACE, SPAN)
    assert (carried.trace, carried.span) == (TRACE, span.id)


def test_a_caller_who_does_not_want_a_trace_sent_has_its_name_in_the_log_alone(
    server: RedisServer,
    folder: Path,
    hands: Hands,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "darkroom.api")
    with traced(server, folder) as (client, collector):
        carried = context_of(redis, submit(client, traceparent=GOOD[:-1] + "0"))
    assert collector.spans == []
    assert (carried.trace, carried.sampled) == (TRACE, False)
    [line] = requests_told(caplog)
    assert vars(line)["trace"] == TRACE


def test_hostile_traceparents_begin_a_trace_of_ours(
    server: RedisServer, folder: Path, hands: Hands, redis: Redis
) -> None:
    sendable = [text for text in HOSTILE if text.isascii() and text.isprintable()]
    bodies = [[("traceparent", text)] for text in sendable if text == text.strip()]
    bodies.append([("traceparent", GOOD), ("traceparent", GOOD)])
    with traced(server, folder) as (client, collector):
        for headers in bodies:
            answer = client.post("/v1/generations", json=BODY, headers=headers)
            if answer.status_code == 202:
                assert context_of(redis, answer.json()["id"]).trace != TRACE
            else:
                assert answer.status_code == 431, "its head is too large for anybody"
    spans = collector.named("POST /v1/generations")
    assert len(spans) >= 10
    assert {span.parent for span in spans} == {""}
    assert len({span.trace for span in spans}) == len(spans)


def test_what_is_found_again_is_named_by_the_request_that_found_it(
    server: RedisServer, folder: Path, hands: Hands, redis: Redis
) -> None:
    with traced(server, folder) as (client, collector):
        first, again = (submit(client, **{"Idempotency-Key": "k"}) for _ in range(2))
        carried = context_of(redis, first)
    one, other = collector.named("POST /v1/generations")
    assert first == again == one["darkroom.generation"] == other["darkroom.generation"]
    assert one.trace == carried.trace != other.trace


def test_a_cancel_in_the_queue_and_a_deadline_that_passes_there_are_told(
    server: RedisServer, folder: Path, hands: Hands
) -> None:
    with traced(server, folder) as (client, collector):
        canceled = submit(client)
        client.post(f"/v1/generations/{canceled}/cancel")
        late = BODY | {"deadline_seconds": 1.0}
        expired = client.post("/v1/generations", json=late, headers={"Prefer": "wait=5"}).json()
        assert expired["status"] == "expired"
    ends = {span["darkroom.generation"]: span for span in collector.named("queue demo")}
    posts = {span["darkroom.generation"]: span for span in collector.named("POST /v1/generations")}
    assert {id: span.error for id, span in ends.items()} == {
        canceled: "canceled",
        expired["id"]: "deadline_exceeded",
    }
    assert [ends[id]["darkroom.outcome"] for id in (canceled, expired["id"])] == [
        "canceled",
        "expired",
    ]
    for id, span in ends.items():
        assert (span.trace, span.parent) == (posts[id].trace, posts[id].id)
        assert span["error.type"] == span.error


def test_a_fault_of_ours_is_an_error_and_a_callers_is_none(
    server: RedisServer, folder: Path, hands: Hands
) -> None:
    with traced(server, folder) as (client, collector):
        client.post("/v1/generations", json={"prompt": "x", "checkpoint": "sd-v1-5"})
        client.post("/v1/generations", json={"prompt": 7})
        client.get(f"/v1/generations/gen_{'0' * 32}")
        client.get("/healthz")
    unserved, wrong = collector.named("POST /v1/generations")
    assert (unserved.error, unserved["http.response.status_code"]) == ("503", 503)
    assert (wrong.error, wrong["http.response.status_code"]) == (None, 422)
    assert {span.name for span in collector.spans} == {
        "POST /v1/generations",
        "GET /v1/generations/{id}",
    }


def test_who_is_not_let_in_leaves_no_span(folder: Path) -> None:
    with closing(RedisServer()) as locked:
        locked.start()
        with Redis.from_url(locked.url) as redis:
            key = key_of(redis)
        collector = visited(locked, folder, key)
    assert [span["http.response.status_code"] for span in collector.spans] == [200]
    assert {span.name for span in collector.spans} == {"GET /v1/generations"}


def visited(locked: RedisServer, folder: Path, key: str) -> Collector:
    """By some without a key, and once with it."""
    with traced(locked, folder, trace_ratio=0) as (client, collector):
        client.headers["traceparent"] = f"00-{'4' * 32}-{'5' * 16}-01"
        assert client.get("/v1/generations").status_code == 401
        assert client.get("/v1/generations", headers=bearer("dr_no")).status_code == 401
        assert client.get("/no/such/path").status_code == 404
        assert client.get("/").status_code == 200
        assert client.get("/v1/generations", headers=bearer(key)).status_code == 200
        locked.kill()
        stranger = bearer(f"dr_{'0' * 12}_{'x' * 43}")
        assert client.get("/v1/generations", headers=stranger).status_code == 503
    return collector


def test_the_other_doors_have_a_trace_too(
    server: RedisServer, folder: Path, hands: Hands, redis: Redis
) -> None:
    def draw() -> None:
        wait_until(lambda: redis.llen("rq:queue:demo"))
        waits: Any = redis.lindex("rq:queue:demo", 0)
        hands.begin(waits.decode())
        hands.succeed(waits.decode())

    with traced(server, folder) as (client, collector), soon(draw):
        answer = client.post("/v1/images/generations", json={"prompt": PROMPT, "size": "128x128"})
        assert answer.status_code == 200, answer.text
    span = collector.one("POST /v1/images/generations")
    carried = context_of(redis, span["darkroom.generation"])
    assert (carried.trace, carried.span) == (span.trace, span.id)


def test_a_webhook_is_called_within_the_trace(
    server: RedisServer, folder: Path, hands: Hands, redis: Redis
) -> None:
    hook = {"webhook_secret": SECRET, "webhook_allow": "127.0.0.1"}
    with receiving() as receiver, traced(server, folder, **hook) as (client, collector):
        body = BODY | {"webhook": {"url": receiver.url}}
        id = client.post("/v1/generations", json=body).json()["id"]
        hands.begin(id)
        hands.succeed(id)
        wait_until(lambda: client.get(f"/v1/generations/{id}/webhook").json()["attempts"])
        carried = context_of(redis, id)
        assert all("traceparent" not in headers for headers, _ in receiver.got)
    call = collector.one("POST webhook")
    assert (call.trace, call.parent, call.kind) == (carried.trace, carried.span, "client")
    assert (call["http.response.status_code"], call["darkroom.outcome"]) == (204, "delivered")
    assert call.error is None


def test_lines_about_a_request_name_its_generation_and_its_trace(
    server: RedisServer, folder: Path, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "darkroom.api")
    with traced(server, folder) as (client, collector):
        id = submit(client)
        client.get(f"/v1/generations/{id}")
        client.get("/v1/samplers")
    lines = {" ".join(r.getMessage().split()[:2]): vars(r) for r in requests_told(caplog)}
    assert {name: line.get("generation") for name, line in lines.items()} == {
        "POST /v1/generations": id,
        "GET /v1/generations/{id}": id,
        "GET /v1/samplers": None,
    }
    assert all(line["trace"] == collector.one(name).trace for name, line in lines.items())


def test_where_tracing_is_off_nothing_is_carried_and_nothing_is_said(
    client: httpx.Client, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "darkroom.api")
    answer = client.post("/v1/generations", json=BODY, headers={"traceparent": GOOD})
    id = answer.json()["id"]
    kept: Any = redis.hgetall(keys.generation(id))
    assert b"traceparent" not in kept
    assert TRACE.encode() not in b"".join(kept.values())
    assert not any("trace" in name.lower() for name in answer.headers)
    assert "trace" not in answer.text
    wait_until(lambda: requests_told(caplog))  # a line is written after its answer
    [line] = requests_told(caplog)
    assert vars(line)["generation"] == id
    assert not hasattr(line, "trace")


GATEWAY = """
import sys, threading, time, urllib.request
from server.api.app import make_server
from server.catalog import load_catalog
from server.config import Settings
server = make_server(Settings(redis=sys.argv[1], data_dir=sys.argv[2], port=0), load_catalog())
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    time.sleep(0.01)
port = server.servers[0].sockets[0].getsockname()[1]
urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/checkpoints").read()
server.should_exit = True
thread.join()
loaded = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "google")
print([name for name in sys.modules if name.startswith((*loaded, "server.tracing.otlp"))])
"""


def test_a_gateway_without_tracing_loads_no_sdk(server: RedisServer, tmp_path: Path) -> None:
    """But what FastAPI and redis-py load of it for themselves: interfaces, and those of metrics."""
    arguments = [sys.executable, "-c", GATEWAY, server.url, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_record_of_before_there_were_traces_is_read_and_later_ones_are_by_older_code() -> None:
    made = Generation(id="gen_1", owner="me", spec=a_spec(), created_at=1.0)
    fields = made.to_hash()
    assert "traceparent" not in fields
    raw = {name.encode(): value.encode() for name, value in fields.items()}
    assert Generation.from_hash(raw).traceparent == ""
    carried = Generation.from_hash(raw | {b"traceparent": GOOD.encode()})
    assert carried.to_hash() == fields | {"traceparent": GOOD}
    # How a version that does not know a field of the record reads it.
    assert Generation.from_hash(raw | {b"of_a_later_version": b"\xff"}) == made


@pytest.fixture
def console() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    log.configure("console", "debug", out)
    yield out
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize("tracing", [True, False])
def test_nothing_says_a_prompt_or_a_key(
    server: RedisServer, folder: Path, redis: Redis, console: io.StringIO, tracing: bool
) -> None:
    key = key_of(redis)
    hands = Hands(redis, folder)
    hands.serve()
    settings = {"otlp_endpoint": ""} if not tracing else {}
    with (
        collecting() as collector,
        gateway(server.url, folder, **({"otlp_endpoint": collector.url} | settings)) as client,
    ):
        client.headers.update(bearer(key))
        id = submit(client)
        hands.begin(id)
        hands.end(id, GenerationState.FAILED, "generation_failed", "it could not")
        client.get(f"/v1/generations/{id}", params={"prompt": PROMPT})
        deep = {"prompt": "(" * 99 + PROMPT, "prompt_syntax": "a1111"}
        assert client.post("/v1/generations", json=deep).status_code == 422
        client.post("/v1/generations", json=BODY | {"width": PROMPT})
        client.post("/v1/images/generations", json={"prompt": PROMPT, "n": 99})
        client.get(f"/v1/generations/{PROMPT}")
    told = console.getvalue().encode() + b"".join(collector.raw)
    assert id.encode() in told
    for private in (PROMPT, ALSO_PRIVATE, "private", key, key[-20:]):
        assert private.encode() not in told
    assert bool(collector.spans) == tracing


def test_prompts_are_logged_where_an_operator_asks_for_it(
    server: RedisServer, folder: Path, hands: Hands, console: io.StringIO
) -> None:
    forged = 'x"}\n00:00:00 ERROR forged\u2028\u202e' + "y" * 5000
    with gateway(server.url, folder, log_prompts=True) as client:
        body = {"prompt": forged, "negative_prompt": ALSO_PRIVATE}
        answer = client.post("/v1/generations", json=body, headers={"Idempotency-Key": "k"})
        again = client.post("/v1/generations", json=body, headers={"Idempotency-Key": "k"})
        assert answer.json()["id"] == again.json()["id"]
        client.post("/v1/generations", json=BODY | {"width": 7})
    [line] = [line for line in console.getvalue().splitlines() if "accepted" in line]
    assert 'prompt: x"}\\n00:00:00 ERROR forged\\u2028\\u202ey' in line
    assert f"negative_prompt: {ALSO_PRIVATE}" in line
    assert line.endswith(f"[{answer.json()['id']}]")
    assert 900 < line.count("y") < 1001
    assert not {"\u2028", "\u202e"} & set(console.getvalue())


def test_a_logged_prompt_is_a_field_of_a_json_line(
    server: RedisServer, folder: Path, hands: Hands
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    log.configure("json", "info", out)
    try:
        with traced(server, folder, log_prompts=True) as (client, collector):
            id = submit(client)
    finally:
        root.handlers[:], root.level = handlers, level
    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    [accepted] = [entry for entry in entries if entry["message"] == "accepted"]
    assert (accepted["prompt"], accepted["negative_prompt"]) == (PROMPT, ALSO_PRIVATE)
    assert accepted["generation"] == id
    assert accepted["trace"] == collector.one("POST /v1/generations").trace
    assert PROMPT.encode() not in b"".join(collector.raw), "only the log was asked for it"
