"""A client and what it is told, by a server that says anything."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.load import a1111_door, native_door, openai_door, visitor, visits
from tests.load.book import Book
from tests.load.population import Door, Kind, Order
from tests.load.visitor import Closing, Failed, Refused, Visitor, expect_png
from tests.load.visits import Visit, accomplish

ORDER = Order("demo", "a red circle", 64, 48, 50, 1, 7, "ddim")
HERE = "/v1/generations/gen_1"


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (visitor, visits, native_door, a1111_door):
        monkeypatch.setattr(module, "time", clock)
    return clock


Answers = Callable[[httpx.Request], httpx.Response]


def a_visitor(answers: Answers | list[httpx.Response], **options: Any) -> Visitor:
    if isinstance(answers, list):
        said: Iterator[httpx.Response] = iter(answers)
        answers = lambda request: next(said)  # noqa: E731
    transport = httpx.MockTransport(answers)
    return Visitor("http://somewhere", Book(), transport=transport, **options)


def a_visit(client: Visitor, kind: Kind = Kind.SHORT, door: Door = Door.NATIVE) -> Visit:
    return Visit(client, door, kind, ORDER)


def refused(code: str = "queue_full", seconds: int = 5, status: int = 503) -> httpx.Response:
    return httpx.Response(status, json={"code": code}, headers={"Retry-After": str(seconds)})


def a_record(status: str, fraction: float = 0.0) -> dict[str, Any]:
    return {
        "id": "gen_1",
        "status": status,
        "created_at": "2026-01-01T00:00:00Z",
        "error": None,
        "eta_seconds": 2.0,
        "progress": {"fraction": fraction},
        "spec": {"seed": ORDER.seed},
        "images": [],
        "urls": {"self": HERE, "cancel": f"{HERE}/cancel", "events": f"{HERE}/events"},
    }


def a_picture(width: int = 64, height: int = 48, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, format)
    return file.getvalue()


def send(client: Visitor) -> httpx.Response:
    return client.persist(Door.NATIVE, Kind.SHORT, lambda: client.send("POST", "/"))


def test_who_is_refused_comes_back_when_told_and_not_sooner(clock: Clock) -> None:
    client = a_visitor([refused(seconds=5), httpx.Response(202)])
    assert send(client).status_code == 202
    assert clock.now == 5.0
    book = client.book
    assert (book.refusals, book.returns, book.broken, book.visits) == (1, 1, 0, 0)


def test_who_is_refused_again_on_coming_back_was_promised_too_much() -> None:
    client = a_visitor([refused(), refused(), httpx.Response(202)])
    send(client)
    assert (client.book.refusals, client.book.returns, client.book.broken) == (2, 2, 1)


@pytest.mark.parametrize("code", ["quota_exceeded", "rate_limited"])
def test_the_limits_of_a_key_are_no_promises(code: str) -> None:
    client = a_visitor([refused(code, status=429), refused(code, status=429), httpx.Response(202)])
    send(client)
    assert (client.book.refusals, client.book.returns) == (2, 0)


def test_a_refusal_of_the_openai_door_is_understood() -> None:
    body = {"error": {"code": "queue_full", "message": "come back"}}
    full = httpx.Response(429, json=body, headers={"Retry-After": "3"})
    client = a_visitor([full, httpx.Response(200)])
    assert send(client).status_code == 200
    assert client.book.refusals == 1


def test_the_time_of_a_visit_begins_when_it_is_let_in(clock: Clock) -> None:
    client = a_visitor([refused(seconds=50), httpx.Response(202)])
    send(client)
    assert client.seconds == 0.0


def test_a_door_that_still_draws_is_asked_again_which_is_no_refusal() -> None:
    client = a_visitor([refused("still_drawing"), httpx.Response(200)])
    send(client)
    assert client.book.refusals == 0


def test_a_refusal_that_does_not_say_when_to_come_back_is_a_failure() -> None:
    client = a_visitor([httpx.Response(503, json={"code": "queue_full"})])
    with pytest.raises(Failed, match="queue_full without a Retry-After"):
        send(client)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(503, json={"code": "no_worker", "detail": "x"}), "503 no_worker: x"),
        (httpx.Response(500, text="Internal Server Error"), "500 : Internal Server Error"),
        (
            httpx.Response(422, json={"error": "E", "detail": "no", "code": "invalid_spec"}),
            "422 invalid_spec: no",
        ),
    ],
)
def test_what_is_no_refusal_is_a_failure_in_words(answer: httpx.Response, words: str) -> None:
    with pytest.raises(Failed, match=words):
        send(a_visitor([answer]))


def test_a_look_that_comes_too_often_waits_and_is_repeated(clock: Clock) -> None:
    client = a_visitor([refused("rate_limited", 2, 429), httpx.Response(200, json={"a": 1})])
    assert client.get("/") == {"a": 1}
    assert clock.now == 2.0


def test_nobody_comes_back_when_the_run_is_over() -> None:
    client = a_visitor([refused(seconds=900)], closing=lambda: True)
    with pytest.raises(Closing):
        send(client)


def test_who_gives_up_because_the_run_is_over_has_neither_ended_nor_failed() -> None:
    client = a_visitor([refused(seconds=900)], closing=lambda: True)
    accomplish(a_visit(client), native_door.draw)
    assert client.book.visits == 0


def test_what_does_not_end_is_a_failure(clock: Clock) -> None:
    def answers(request: httpx.Request) -> httpx.Response:
        clock.sleep(float(request.headers["Prefer"].removeprefix("wait=")))
        return httpx.Response(202, json=a_record("running"))

    with pytest.raises(Failed, match="is still running after 25 s"):
        a_visitor(answers).followed(HERE, within=25)
    assert clock.now == 25


def test_what_is_left_is_what_this_run_has_asked_for() -> None:
    records = [
        a_record("running"),
        a_record("succeeded"),
        a_record("queued") | {"spec": {"seed": 8}},
        a_record("queued") | {"created_at": "2025-01-01T00:00:00Z"},
    ]
    pages = [
        httpx.Response(200, json={"generations": records[:2], "next": "2"}),
        httpx.Response(200, json={"generations": records[2:], "next": "3"}),
    ]
    client = a_visitor(pages)
    client.book.seeds.add(ORDER.seed)
    assert client.living(since=1_767_225_600.0) == ["gen_1 is running"]


def test_a_picture_is_a_whole_png_of_the_right_size() -> None:
    expect_png(a_picture(), ORDER)
    with pytest.raises(Failed, match="is no PNG"):
        expect_png(a_picture(format="JPEG"), ORDER)
    with pytest.raises(Failed, match="is no PNG"):
        expect_png(a_picture()[:-20], ORDER)
    with pytest.raises(Failed, match=r"is \(48, 64\) and not \(64, 48\)"):
        expect_png(a_picture(48, 64), ORDER)
    with pytest.raises(Failed, match="another file than its record says"):
        expect_png(a_picture(), ORDER, "0" * 64)


def test_too_few_pictures_are_a_failure() -> None:
    with pytest.raises(Failed, match="0 pictures and not 1"):
        a_visit(a_visitor([])).pictures([])


def canceling(*records: dict[str, Any]) -> bool:
    """Whether it came in time, where the server then says these of it, one after the other."""
    said = [httpx.Response(202, json=a_record("running"))]
    said += [httpx.Response(200, json=record) for record in records]
    return a_visit(a_visitor(said)).cancel(a_record("running"))


@pytest.mark.parametrize("status", ["queued", "running"])
def test_what_is_drawn_although_it_was_canceled_is_a_failure(status: str) -> None:
    with pytest.raises(Failed, match=f"canceled, was still {status} then, and ended: succeeded"):
        canceling(a_record(status, 0.6), a_record("succeeded", 1.0))


def test_what_fails_because_it_was_canceled_is_a_failure() -> None:
    with pytest.raises(Failed, match="ended: failed"):
        canceling(a_record("failed"), a_record("failed"))


@pytest.mark.parametrize("then", [a_record("running", 1.0), a_record("succeeded", 1.0)])
def test_what_had_no_steps_left_may_come_before_the_cancel(then: dict[str, Any]) -> None:
    assert not canceling(then, a_record("succeeded", 1.0))


def test_what_ends_as_canceled_was_canceled_in_time() -> None:
    assert canceling(a_record("running", 0.6), a_record("canceled", 0.6))


def test_what_goes_on_after_its_client_has_left_is_a_failure(clock: Clock) -> None:
    def answers(request: httpx.Request) -> httpx.Response:
        clock.sleep(10.0)
        return httpx.Response(202, json=a_record("running"))

    with pytest.raises(Failed, match="is still running after 30 s"):
        a_visit(a_visitor(answers)).deserted(a_record("running"))


@pytest.mark.parametrize("talk", [openai_door.leaves, a1111_door.abandon])
def test_who_left_before_being_let_in_has_left_nothing(talk: Callable[[Visit], int]) -> None:
    def answers(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            raise httpx.ReadTimeout("nobody answers", request=request)
        return httpx.Response(200, json={"generations": [], "next": None})

    assert talk(a_visit(a_visitor(answers), Kind.ABANDONED)) == 0


def a_stream(*events: tuple[str, str]) -> httpx.Response:
    lines = [f"id: {id}\nevent: {name}\ndata: {{}}\n\n" for id, name in events]
    return httpx.Response(200, text=": a comment\n\n" + "".join(lines))


class Following:
    """A server whose stream breaks off after the first event."""

    def __init__(self, *rest: httpx.Response) -> None:
        self.streams = iter([a_stream(("1", "state")), *rest])
        self.after: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            self.after.append(request.headers.get("last-event-id"))
            return next(self.streams)
        if request.url.path.endswith("/0"):
            return httpx.Response(200, content=a_picture())
        record = a_record("queued" if request.method == "POST" else "succeeded")
        images = [{"url": f"{HERE}/images/0", "sha256": ""}]
        return httpx.Response(200, json=record | {"images": images, "metrics": SLOW})


SLOW = {"total_seconds": 3.0}


def test_a_stream_that_breaks_off_is_resumed_where_it_was() -> None:
    server = Following(a_stream(("2", "progress"), ("3", "done")))
    client = a_visitor(server)
    assert native_door.watches(a_visit(client)) == 1
    assert server.after == [None, "1"]
    assert client.book.ratios == [1.5]


def test_an_event_that_was_seen_before_is_a_failure() -> None:
    server = Following(a_stream(("1", "state"), ("3", "done")))
    with pytest.raises(Failed, match="told again"):
        native_door.watches(a_visit(a_visitor(server)))


def test_an_error_in_a_stream_of_the_openai_door_is_a_failure() -> None:
    error = json.dumps({"error": {"code": "out_of_memory", "message": "too large"}})
    stream = httpx.Response(200, text=f"event: error\ndata: {error}\n\n")
    client = a_visitor([stream])
    accomplish(a_visit(client, door=Door.OPENAI), openai_door.reads)
    assert list(client.book.failures) == ["openai, short: out_of_memory: too large"]


def test_a_server_that_is_not_there_is_a_failure() -> None:
    def answers(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = a_visitor(answers)
    accomplish(a_visit(client), native_door.draw)
    assert client.book.failure_percent == 100.0


@pytest.mark.parametrize(
    ("key", "stopped_by"), [("", "/sdapi/v1/interrupt"), ("dr_secret", f"{HERE}/cancel")]
)
def test_with_a_key_nobody_interrupts_what_others_draw_under_it(key: str, stopped_by: str) -> None:
    """An interrupt stops all that is the caller's, and a key is one caller."""
    stopped = threading.Event()
    posted = []

    def answers(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "POST":
            posted.append(path)
        if path == "/sdapi/v1/txt2img":
            assert stopped.wait(10)
            info = json.dumps({"interrupted": True})
            return httpx.Response(200, json={"images": [], "info": info})
        if path == stopped_by:
            stopped.set()
        if path == "/v1/generations":
            return httpx.Response(200, json={"generations": [a_record("running")], "next": None})
        record = a_record("canceled" if stopped.is_set() else "running")
        return httpx.Response(200, json=record | {"state": {"job_count": 1}})

    visit = a_visit(a_visitor(answers, key=key), Kind.CANCELED, Door.A1111)
    assert a1111_door.cancel(visit) == 0
    assert posted == ["/sdapi/v1/txt2img", stopped_by]


def test_a_stream_that_is_one_too_many_waits_and_is_opened_again(clock: Clock) -> None:
    server = Following(refused("too_many_streams", 9, 429), a_stream(("2", "done")))
    assert native_door.watches(a_visit(a_visitor(server))) == 1
    assert clock.now == 9.0


def test_a_refusal_says_itself_in_words() -> None:
    assert str(Refused("queue_full", 5)) == "queue_full, come back after 5 s"
