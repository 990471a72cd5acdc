"""A real `darkroom serve` tells a collector what became of a request, and its log says the same."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.house import wait_until
from tests.api.receiver import SECRET, receiving
from tests.collector import GOOD, SPAN, TRACE, Collector, collecting
from tests.system.conftest import Serve

PROMPT = "a red circle on a very private background"
PHASES = ["encode", "denoise", "decode", "publish"]
BODY: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 2}


def post(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """Draw, and wait for it, as a caller with a trace of its own."""
    headers = {"Prefer": "wait=60", "traceparent": GOOD}
    answer = client.post("/v1/generations", json=BODY | body, headers=headers)
    record: dict[str, Any] = answer.json()
    assert record["status"] == "succeeded", record
    return record


def of(collector: Collector, id: str, name: str) -> list[Any]:
    """Spans of one generation, by when they began."""
    return [s for s in collector.named(name) if s.attributes.get("darkroom.generation") == id]


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Webhooks may be called here."""
    monkeypatch.setenv("DARKROOM_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("DARKROOM_WEBHOOK_ALLOW", "127.0.0.1")


def test_one_generation_is_one_trace_from_its_request_to_its_webhook(
    serve: Serve, hooked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector, receiving() as receiver:
        monkeypatch.setenv("DARKROOM_OTLP_ENDPOINT", collector.url)
        served = serve("--log-format", "json")
        url = served.until(r"ready at (http://[^\s\"]+)")[1]
        with httpx.Client(base_url=url, timeout=90) as client:
            plain = post(client, webhook={"url": receiver.url})
            chained = post(client, hires={"width": 256, "height": 256, "strength": 0.5})
            told = f"/v1/generations/{plain['id']}/webhook"
            wait_until(lambda: client.get(told).json()["attempts"])
        assert served.stop() == 0, served.said
    of_one_stage(collector, plain)
    of_two_stages(collector, chained["id"])
    in_the_log(served.said, plain["id"])
    assert b"private" not in b"".join(collector.raw)


def of_one_stage(collector: Collector, record: dict[str, Any]) -> None:
    [request] = of(collector, record["id"], "POST /v1/generations")
    assert (request.trace, request.parent, request.service) == (TRACE, SPAN, "darkroom-gateway")
    names = ("queue demo", "draw demo", "POST webhook")
    [queue], [draw], [hook] = (of(collector, record["id"], name) for name in names)
    for span in (queue, draw, hook):
        assert (span.trace, span.parent, span.error) == (TRACE, request.id, None)
    assert (draw.service, draw["darkroom.outcome"]) == ("darkroom-worker", "succeeded")
    assert collector.children(draw) == PHASES
    assert draw["darkroom.worker"] == record["metrics"]["worker"]


def of_two_stages(collector: Collector, id: str) -> None:
    draws = of(collector, id, "draw demo")
    assert [span["darkroom.stage"] for span in draws] == [1, 2]
    assert [span["darkroom.outcome"] for span in draws] == ["handed_on", "succeeded"]
    assert [span["darkroom.width"] for span in draws] == [128, 256]
    [request] = of(collector, id, "POST /v1/generations")
    assert {span.parent for span in draws} == {request.id}


def in_the_log(said: str, id: str) -> None:
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("generation") == id]
    messages = {line["message"].split(" 20")[0] for line in mine}
    assert messages >= {"POST /v1/generations", "claimed", "succeeded"}
    # Asking for the webhook is a request of another trace.
    drawing = [line for line in mine if not line["message"].startswith("GET")]
    assert {line["trace"] for line in drawing} == {TRACE}
    assert "private" not in said
