"""What only somebody who means harm sends, and what somebody with access to Redis can write."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import httpx
import pytest

from server.broker import keys
from tests.api.house import Hands, wait_until


def speak(client: httpx.Client, said: bytes) -> bytes:
    """Bytes over a connection of one's own, closed at once where nothing comes back."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), 10) as line:
        line.sendall(said)
        line.shutdown(socket.SHUT_WR)
        line.settimeout(10)
        return line.recv(65536)


def test_leading_zeros_do_not_hide_the_size_of_a_body(client: httpx.Client, hands: Hands) -> None:
    length = b"0" * 22 + str(40 * 2**20).encode()
    head = b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    answer = speak(client, head + b"Content-Length: " + length + b"\r\n\r\n{")
    assert b" 413 " in answer.splitlines()[0]
    assert hands.queued() == 0


def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_error_of_ours(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "darkroom.api")
    head = b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), 10) as line:
        line.sendall(head + b"Content-Length: 100\r\n\r\n{")
    wait_until(lambda: any(" 499 " in record.getMessage() for record in caplog.records))
    assert all(record.levelno < logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("last", ["99999999999999999999", "1-18446744073709551616"])
def test_an_event_id_that_cannot_be_is_refused(
    client: httpx.Client, submit: Callable[..., str], last: str
) -> None:
    answer = client.get(f"/v1/generations/{submit()}/events", headers={"Last-Event-ID": last})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


def test_a_record_that_cannot_be_read_hides_no_other(
    client: httpx.Client, hands: Hands, submit: Callable[..., str]
) -> None:
    good, broken = submit(), submit()
    hands.redis.hset(keys.generation(broken), "spec", "{")
    listed = client.get("/v1/generations").json()["generations"]
    assert [generation["id"] for generation in listed] == [good]
    answer = client.get(f"/v1/generations/{broken}")
    assert answer.status_code == 500
    assert "cannot be read" in answer.json()["detail"]


def test_a_worker_that_cannot_be_read_hides_no_other(client: httpx.Client, hands: Hands) -> None:
    hands.redis.sadd(keys.workers("demo"), b"\xff", "ghost")
    hands.redis.hset(keys.worker("ghost"), mapping={"name": "ghost", "capacity": "x"})
    for path in ("/readyz", "/v1/queue", "/metrics"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/images/generations", "/sdapi/v1/txt2img"])
def test_a_page_of_another_site_has_nothing_drawn(
    client: httpx.Client, hands: Hands, path: str
) -> None:
    body = {"prompt": "a red circle"}
    answer = client.post(path, json=body, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "another site" in answer.text
    assert hands.queued() == 0


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_a_page_of_our_own_has(client: httpx.Client, site: str) -> None:
    answer = client.post(
        "/v1/generations", json={"prompt": "a red circle"}, headers={"Sec-Fetch-Site": site}
    )
    assert answer.status_code == 202


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/images/generations"])
def test_a_body_of_very_many_values_is_refused_before_each_becomes_a_sentence(
    client: httpx.Client, hands: Hands, path: str
) -> None:
    body = "{" + ",".join(f'"{number}":0' for number in range(60_000)) + "}"
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert "50,000 values" in answer.text
    parts = {"request": (None, body)}
    assert "50,000 values" in client.post(path, files=parts).text
    assert hands.queued() == 0


def test_very_many_wrong_parameters_get_an_answer_that_a_person_can_read(
    client: httpx.Client,
) -> None:
    query = "&".join(f"a{number}=1" for number in range(3000))
    answer = client.get(f"/v1/generations?{query}")
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20


def test_what_a_path_answers_to_is_told_of_it_alone(client: httpx.Client) -> None:
    answer = client.put("/v1/generations/replay")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
