"""An SDK that gives up and tries again gets what its first try is having drawn; what nobody waits
for any more is not drawn."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from tests.api.house import Hands, wait_until
from tests.api.openai.conftest import Artist, Sdk, cleared
from tests.api.pictures import picture

Start = Callable[..., httpx.Client]
LEFT = 'status="499"'


def left(client: httpx.Client) -> int:
    """How many clients have hung up before they were answered."""
    lines = client.get("/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("darkroom_http_requests_total{")]
    return sum(int(float(line.split()[-1])) for line in counts if LEFT in line)


def status(client: httpx.Client, id: str) -> str:
    found: str = client.get(f"/v1/generations/{id}").json()["status"]
    return found


@pytest.mark.parametrize("operation", ["generate", "edit"])
def test_a_slow_answer_is_waited_for_by_a_retry_and_drawn_once(
    start: Start, artist: Artist, connect: Sdk, soon_with_id: Any, operation: str
) -> None:
    client = start(abandoned_seconds=30)
    artist.free.clear()

    def free_when_the_first_try_is_over(_: str) -> None:
        wait_until(lambda: left(client))
        artist.free.set()

    sdk = connect(client, timeout=0.5, max_retries=2)
    with soon_with_id(free_when_the_first_try_is_over):
        if operation == "generate":
            answer = sdk.images.generate(prompt="a red circle")
        else:  # whose form has another boundary at each try
            answer = sdk.images.edit(image=picture(), mask=cleared(), prompt="a star")
    assert [base64.b64decode(image.b64_json or "") for image in answer.data or ()] == [picture()]
    assert len(artist.ids()) == 1
    assert len(artist.drawn) == 1


def test_the_same_request_that_is_no_retry_is_drawn_again(
    sdk: openai.OpenAI, artist: Artist
) -> None:
    for _ in range(2):
        sdk.images.generate(prompt="a red circle")
    assert len(artist.ids()) == 2


def test_the_same_idempotency_key_gets_the_same_pictures(
    sdk: openai.OpenAI, artist: Artist
) -> None:
    headers = {"Idempotency-Key": "order 82"}
    ids = [
        (sdk.images.generate(prompt="a red circle", extra_headers=headers).model_extra or {})["id"]
        for _ in range(2)
    ]
    assert ids == [artist.drawn[0]] * 2
    assert len(artist.ids()) == 1


def test_who_comes_back_with_its_key_for_what_it_had_left_gets_it_drawn(
    start: Start, artist: Artist, connect: Sdk
) -> None:
    client = start(abandoned_seconds=0.1)
    headers = {"Idempotency-Key": "order 84"}
    artist.free.clear()
    with pytest.raises(openai.APITimeoutError):
        connect(client, timeout=0.3).images.generate(prompt="a red circle", extra_headers=headers)
    [id] = artist.ids()
    wait_until(lambda: status(client, id) == "canceled")
    artist.free.set()
    connect(client).images.generate(prompt="a red circle", extra_headers=headers)
    assert len(artist.drawn) == 1
    assert id not in artist.drawn


def test_what_a_client_leaves_for_good_is_canceled(
    start: Start, artist: Artist, connect: Sdk
) -> None:
    client = start(abandoned_seconds=0.1)
    artist.free.clear()
    with pytest.raises(openai.APITimeoutError):
        connect(client, timeout=0.3).images.generate(prompt="a red circle")
    [id] = artist.ids()
    wait_until(lambda: status(client, id) == "canceled")


def test_what_one_of_two_clients_leaves_is_drawn_for_the_other(
    start: Start, artist: Artist, connect: Sdk, soon_with_id: Any
) -> None:
    client = start(abandoned_seconds=0.1)
    artist.free.clear()
    headers = {"Idempotency-Key": "order 83"}
    hasty = connect(client, timeout=0.3)

    def leave(id: str) -> None:
        with pytest.raises(openai.APITimeoutError):
            hasty.images.generate(prompt="a red circle", extra_headers=headers)
        with pytest.raises(openai.APITimeoutError):
            hasty.images.generate(prompt="a star")
        [later] = set(artist.ids()) - {id}
        wait_until(lambda: status(client, later) == "canceled")
        assert status(client, id) == "queued", "its turn came before"
        artist.free.set()

    with soon_with_id(leave):
        connect(client).images.generate(prompt="a red circle", extra_headers=headers)
    assert len(artist.drawn) == 1


def test_a_stream_that_is_left_is_canceled(
    start: Start, hands: Hands, artist: Artist, connect: Sdk
) -> None:
    client = start(abandoned_seconds=0.1)
    artist.free.clear()
    stream = connect(client).images.generate(prompt="a star", stream=True, partial_images=1)
    wait_until(artist.ids)
    [id] = artist.ids()
    hands.begin(id)
    assert hands.show(id, b"a glimpse")
    assert next(stream).type == "image_generation.partial_image"
    stream.close()
    wait_until(lambda: artist.told_to_stop(id))


def test_a_stream_that_is_left_before_it_begins_is_canceled(start: Start, artist: Artist) -> None:
    client = start(abandoned_seconds=0.1)
    artist.free.clear()
    body = b'{"prompt": "a star", "stream": true}'
    head = f"Host: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as hasty:
        hasty.sendall(b"POST /v1/images/generations HTTP/1.1\r\n" + head.encode() + body)
    wait_until(artist.ids)
    wait_until(lambda: status(client, artist.ids()[0]) == "canceled")
    assert left(client) == 1


def test_a_stream_that_is_read_to_its_end_is_not_canceled(
    start: Start, artist: Artist, connect: Sdk
) -> None:
    client = start(abandoned_seconds=0.1)
    with connect(client).images.generate(prompt="a star", stream=True) as stream:
        assert [event.type for event in stream] == ["image_generation.completed"]
    assert status(client, artist.drawn[0]) == "succeeded"
