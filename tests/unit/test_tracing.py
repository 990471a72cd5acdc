"""Trace contexts, the log's memory of them, and what a tracer needs."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from server import log
from server.config import Settings
from server.errors import DarkroomError
from server.tracing import SILENT, Context, open_tracer
from server.tracing.memory import Memory
from server.tracing.otlp import EXPORTER
from tests.collector import GOOD, HOSTILE, SPAN, TRACE, collecting


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text)[:40])
def test_what_is_no_traceparent_is_nothing(text: str) -> None:
    assert Context.read(text) is None


def test_a_traceparent_is_written_as_it_was_read() -> None:
    assert Context.read(GOOD) == Context(TRACE, SPAN, sampled=True)
    for text in (GOOD, GOOD[:-1] + "0"):
        assert str(Context.read(text)) == text


def test_of_a_later_version_what_this_one_knows_is_read() -> None:
    assert Context.read(f"01-{TRACE}-{SPAN}-03-what-is-to-come") == Context.read(GOOD)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged as JSON."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    log.configure("json", "info", out)
    yield out
    root.handlers[:], root.level = handlers, level


def test_a_line_about_a_generation_names_its_trace(lines: io.StringIO) -> None:
    memory = Memory(most=2)
    memory.begin()
    for number in range(3):
        memory.keep(f"gen_{number}", str(number))
    about = logging.getLogger("darkroom.test").info
    about("forgotten", extra={"generation": "gen_0"})
    about("known", extra={"generation": "gen_2"})
    about("its own", extra={"generation": "gen_2", "trace": "another"})
    about("of none")
    memory.end()
    about("over", extra={"generation": "gen_2"})
    told = [json.loads(line).get("trace") for line in lines.getvalue().splitlines()]
    assert told == [None, "2", "another", None, None]


def test_where_tracing_is_off_nothing_of_opentelemetry_is_loaded() -> None:
    off = (
        "import sys; from server.tracing import SILENT, open_tracer;"
        "assert open_tracer('', 1.0, service='s', instance='i') is SILENT;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", off], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_silent_tracer_takes_everything_and_carries_nothing() -> None:
    span = SILENT.begin("x", None)
    span.say({"a": 1})
    span.end(name="y", error="z", at=1.0)
    SILENT.remember("gen_1", span.context)
    SILENT.close()
    assert not SILENT.on
    assert Context.read(str(span.context)) is None


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(DarkroomError, match=r"pip install '\.\[tracing\]' in the folder"):
        open_tracer("http://127.0.0.1:4318", 1.0, service="s", instance="i")


@pytest.mark.parametrize("command", [["serve"], ["gateway", "--redis", "redis://127.0.0.1:1/0"]])
def test_a_command_without_the_extra_ends_before_it_begins(command: list[str]) -> None:
    without = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; from server.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", without, *command],
        capture_output=True,
        text=True,
        env={"DARKROOM_OTLP_ENDPOINT": "http://127.0.0.1:4318", "DARKROOM_PORT": "0"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install '.[tracing]'" in done.stderr


@pytest.mark.parametrize(
    "url", ["localhost:4318", "ftp://x", "http://", "http://u:p@x:4318", "http://x?key=1"]
)
def test_an_endpoint_is_an_address_and_no_more(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(otlp_endpoint=url)
    [error] = refused.value.errors()
    assert "OTEL_EXPORTER_OTLP_HEADERS" in error["msg"] or "http://" in error["msg"]


def test_a_span_is_told_with_its_parent_its_times_and_its_end() -> None:
    with collecting() as collector:
        tracer = open_tracer(collector.url + "/", 1.0, service="test", instance="i")
        root = tracer.begin("request", Context.read(GOOD), at=1000.0)
        child = tracer.begin("child", root.context, at=1000.5, attributes={"darkroom.stage": 1})
        child.end(error="not_finite", at=1001.0)
        root.say({"darkroom.task": "upscale"})
        root.end(name="POST /", at=1002.0)
        tracer.close()
    assert collector.paths == {"/v1/traces"}
    root_seen, child_seen = collector.one("POST /"), collector.one("child")
    assert (root_seen.trace, root_seen.parent, root_seen.error) == (TRACE, SPAN, None)
    assert (root_seen.began, root_seen.ended, root_seen.service) == (1000.0, 1002.0, "test")
    assert root_seen["darkroom.task"] == "upscale"
    assert (child_seen.trace, child_seen.parent) == (TRACE, root_seen.id)
    assert (child_seen.error, child_seen["error.type"]) == ("not_finite", "not_finite")
    assert (child_seen.began, child_seen.ended) == (1000.5, 1001.0)


def test_a_share_of_the_traces_is_sent_and_a_callers_own_word_counts() -> None:
    unsampled = Context(TRACE, SPAN, sampled=False)
    with collecting() as collector:
        none = open_tracer(collector.url, 0.0, service="test", instance="i")
        made = none.begin("begun here", None)
        assert not made.context.sampled
        assert Context.read(str(made.context)) == made.context, "the log names it all the same"
        made.end()
        none.begin("asked for", Context.read(GOOD)).end()
        none.close()
        every = open_tracer(collector.url, 1.0, service="test", instance="i")
        kept = every.begin("not wanted", unsampled)
        assert (kept.context.trace, kept.context.sampled) == (TRACE, False)
        kept.end()
        every.close()
    assert [span.name for span in collector.spans] == ["asked for"]


def test_a_collector_that_is_away_is_told_of_seldom(caplog: pytest.LogCaptureFixture) -> None:
    tracer = open_tracer("http://127.0.0.1:9", 1.0, service="test", instance="i")
    for _ in range(3):
        logging.getLogger(EXPORTER).warning("it is away")
    assert caplog.messages == ["it is away"]
    tracer.close()


def test_a_collector_that_is_away_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.tracing.otlp.CLOSE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # it takes the call and never answers
        tracer = open_tracer(
            f"http://127.0.0.1:{mute.getsockname()[1]}", 1.0, service="test", instance="i"
        )
        for _ in range(10_000):  # more than the queue holds
            tracer.begin("x", None).end()
        began = time.monotonic()
        tracer.close()
        assert time.monotonic() - began < 20, "the SDK alone waits for half a minute"
