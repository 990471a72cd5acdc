from __future__ import annotations

import hashlib
from collections.abc import Callable

import httpx
import pytest

from server.spec import GenerationState
from tests.api.house import Hands

Submit = Callable[..., str]
ETAG = f'"{hashlib.sha256(b"PNG").hexdigest()}"'


@pytest.fixture
def done(hands: Hands, submit: Submit) -> str:
    id = submit(output_format="png")
    hands.succeed(id, b"PNG")
    return id


def test_an_image_may_be_kept_for_ever(client: httpx.Client, done: str) -> None:
    answer = client.get(f"/v1/generations/{done}/images/0")
    assert (answer.status_code, answer.content) == (200, b"PNG")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == ETAG
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["vary"] == "Authorization, X-API-Key"
    assert answer.headers["content-disposition"] == f'inline; filename="{done}-0.png"'
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("tags", [ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*"])
def test_whoever_has_it_gets_304(client: httpx.Client, done: str, tags: str) -> None:
    headers = {"If-None-Match": tags}
    answer = client.get(f"/v1/generations/{done}/images/0", headers=headers)
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == ETAG


def test_another_etag_gets_the_image(client: httpx.Client, done: str) -> None:
    headers = {"If-None-Match": '"other"'}
    assert client.get(f"/v1/generations/{done}/images/0", headers=headers).status_code == 200


@pytest.mark.parametrize("index", [1, -1])
def test_an_index_beyond_the_images_is_404(client: httpx.Client, done: str, index: int) -> None:
    answer = client.get(f"/v1/generations/{done}/images/{index}")
    assert answer.status_code == 404
    assert "has 1 image(s)" in answer.json()["detail"]


def test_an_index_that_is_no_number_is_422(client: httpx.Client, done: str) -> None:
    answer = client.get(f"/v1/generations/{done}/images/first")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("state", [GenerationState.FAILED, None])
def test_what_was_not_drawn_has_no_images(
    client: httpx.Client, hands: Hands, submit: Submit, state: GenerationState | None
) -> None:
    id = submit()
    if state:
        hands.end(id, state, "not_finite", "in words")
    answer = client.get(f"/v1/generations/{id}/images/0")
    assert answer.status_code == 404
    assert f"it is {state or 'queued'}" in answer.json()["detail"]


def test_an_image_the_store_has_lost_is_gone(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    [key] = hands.succeed(id)
    (hands.images / key).unlink()
    answer = client.get(f"/v1/generations/{id}/images/0")
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
