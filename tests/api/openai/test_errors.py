"""Each of the SDK's exceptions, raised by what it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from redis import Redis

from server.spec import GenerationState
from tests.api.house import Hands, gateway, wait_until
from tests.api.openai.conftest import Artist, Sdk
from tests.api.pictures import picture
from tests.redis_server import RedisServer

FAILED = [
    (GenerationState.FAILED, "out_of_memory", 500),
    (GenerationState.FAILED, "generation_failed", 500),
    (GenerationState.EXPIRED, "deadline_exceeded", 504),
]


@pytest.fixture
def waiting(artist: Artist) -> Artist:
    """Draws nothing by itself."""
    artist.free.clear()
    return artist


def told(error: openai.APIError) -> tuple[str | None, str | None, str | None]:
    return error.type, error.code, error.param


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"n": 11}, "n", "less than or equal to 10"),
        ({"size": "large"}, "size", "WIDTHxHEIGHT"),
        ({"size": "1x4096"}, "size", "no size of this shape"),
        ({"output_format": "gif"}, "output_format", "'png'"),
        ({"prompt": None}, "prompt", "string"),
        ({"extra_body": {"num_inference_step": 9}}, "num_inference_step", "num_inference_steps?"),
        ({"extra_body": {"num_inference_steps": 9999}}, "num_inference_steps", "between 1 and"),
        ({"extra_body": {"width": 100}}, "width", "multiple of 8"),
        ({"n": 2, "extra_body": {"num_images": 3}}, "n", "send one of them"),
        ({"size": "64x64", "extra_body": {"height": 64}}, "size", "send one of them"),
        ({"extra_body": {"loras": [{"name": "a"}] * 9}}, "loras", "at most 8"),
    ],
)
def test_what_cannot_be_drawn_is_a_bad_request_that_names_its_field(
    sdk: openai.OpenAI, fields: dict[str, Any], param: str, says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.images.generate(**({"prompt": "a red circle"} | fields))
    assert raised.value.type == "invalid_request_error"
    assert raised.value.param == param
    assert says in raised.value.message
    assert raised.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"quality": "hd"}, "quality"),
        ({"background": "transparent"}, "background"),
        ({"size": "1024x1024"}, "size"),
        ({"model": "dall-e-2"}, "model"),
        ({"extra_body": {"eta": 0.5}}, "eta"),
    ],
)
def test_strict_makes_each_warning_a_bad_request(
    sdk: openai.OpenAI, artist: Artist, fields: dict[str, Any], param: str
) -> None:
    asked = {"prompt": "a red circle"} | fields
    asked["extra_body"] = {"strict": True} | fields.get("extra_body", {})
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.images.generate(**asked)
    assert raised.value.param == param
    assert artist.ids() == []


def test_a_model_that_is_not_here_is_not_found(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.images.generate(prompt="a red circle", model="stable-diffusion-99")
    assert told(raised.value) == ("invalid_request_error", "model_not_found", "model")
    assert "demo" in raised.value.message
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.models.retrieve("stable-diffusion-99")
    assert raised.value.code == "model_not_found"


def test_what_the_card_does_not_offer_is_the_models_fault(sdk: openai.OpenAI, hands: Hands) -> None:
    hands.serve("sd-v1-5-inpainting", name="another")
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.images.generate(prompt="a red circle", model="sd-v1-5-inpainting")
    assert raised.value.param == "model"
    assert "offers inpainting" in raised.value.message


def test_a_field_is_called_as_the_caller_called_it(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.images.edit(image=picture(), mask=b"no picture", prompt="a star")
    assert raised.value.param == "mask"
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.images.edit(image=picture(), mask=picture(), prompt="a star")
    assert "mask: has nothing transparent" in raised.value.message
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.images.edit(image=b"no picture", prompt="a star")
    assert raised.value.param == "image"


def test_what_somebody_cancels_is_a_conflict_that_is_not_tried_again(
    client: httpx.Client, waiting: Artist, connect: Sdk, soon_with_id: Any
) -> None:
    sdk = connect(client, max_retries=2)
    canceled = soon_with_id(lambda id: client.post(f"/v1/generations/{id}/cancel"))
    with canceled, pytest.raises(openai.ConflictError) as raised:
        sdk.images.generate(prompt="a red circle")
    assert raised.value.code == "canceled"
    assert len(waiting.ids()) == 1


def test_one_key_with_two_bodies_is_unprocessable(sdk: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "order 81"}
    sdk.images.generate(prompt="a red circle", extra_headers=headers)
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        sdk.images.generate(prompt="a blue star", extra_headers=headers)
    assert raised.value.code == "idempotency_conflict"


def test_a_full_queue_is_a_rate_limit_that_says_when_to_come_back(
    start: Any, waiting: Artist, connect: Sdk
) -> None:
    client = start(max_queued=1)
    assert client.post("/v1/generations", json={"prompt": "a star"}).status_code == 202
    with pytest.raises(openai.RateLimitError) as raised:
        connect(client).images.generate(prompt="a red circle")
    assert told(raised.value) == ("rate_limit_error", "queue_full", None)
    assert int(raised.value.response.headers["retry-after"]) >= 1
    assert raised.value.response.headers["x-should-retry"] == "true"


@pytest.mark.parametrize(("state", "code", "status"), FAILED)
def test_what_fails_is_a_server_error_and_is_drawn_once(
    client: httpx.Client,
    hands: Hands,
    waiting: Artist,
    connect: Sdk,
    soon_with_id: Any,
    state: GenerationState,
    code: str,
    status: int,
) -> None:
    sdk = connect(client, max_retries=2)
    ended = soon_with_id(lambda id: hands.end(id, state, code, "it ended"))
    with ended, pytest.raises(openai.InternalServerError) as raised:
        sdk.images.generate(prompt="a red circle")
    assert (raised.value.status_code, raised.value.type) == (status, "server_error")
    assert raised.value.code == code
    assert "it ended" in raised.value.message
    assert len(waiting.ids()) == 1


def test_nobody_there_to_draw_is_a_server_error_worth_another_try(
    sdk: openai.OpenAI, redis: Redis
) -> None:
    redis.delete("darkroom:served:demo")
    with pytest.raises(openai.InternalServerError) as raised:
        sdk.images.generate(prompt="a red circle")
    assert (raised.value.status_code, raised.value.code) == (503, "no_worker")
    assert raised.value.response.headers["x-should-retry"] == "true"


def test_what_takes_longer_than_an_answer_is_held_back_is_a_server_error(
    start: Any, waiting: Artist, connect: Sdk
) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        connect(start(max_wait_seconds=0.2)).images.generate(prompt="a red circle")
    assert (raised.value.status_code, raised.value.code) == (503, "still_drawing")


@pytest.mark.parametrize(("state", "code", "status"), FAILED)
def test_what_fails_after_a_stream_began_is_raised_from_it(
    sdk: openai.OpenAI,
    hands: Hands,
    waiting: Artist,
    state: GenerationState,
    code: str,
    status: int,
) -> None:
    with sdk.images.generate(prompt="a red circle", stream=True) as stream:
        wait_until(waiting.ids)
        hands.end(waiting.ids()[0], state, code, "it ended")
        with pytest.raises(openai.APIError, match="it ended") as raised:
            next(stream)
    assert told(raised.value) == ("server_error", code, None)


def test_what_is_refused_before_a_stream_begins_is_an_answer_like_any_other(
    sdk: openai.OpenAI,
) -> None:
    with pytest.raises(openai.NotFoundError):
        sdk.images.generate(prompt="a red circle", model="nobody", stream=True)
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.images.generate(prompt="a red circle", stream=True, partial_images=4)
    assert raised.value.param == "partial_images"


def test_other_refusals_are_in_the_same_envelope(client: httpx.Client) -> None:
    for answer, status, code in (
        (client.post("/v1/images/generations", content=b"{}"), 415, "unsupported_media_type"),
        (client.post("/v1/images/generations", json=[]), 400, "invalid_request"),
        (client.get("/v1/images/generations"), 405, "method_not_allowed"),
        (client.post("/v1/images/upscales", json={}), 404, "not_found"),
        (client.get("/v1/models/a/b"), 404, "not_found"),
    ):
        assert answer.status_code == status
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == (code, "invalid_request_error")
        assert set(error) == {"message", "type", "param", "code"}
        assert error["param"] is None


def test_a_queue_that_is_away_is_worth_another_try(tmp_path: Path, connect: Sdk) -> None:
    server = RedisServer()
    server.start()
    with gateway(server.url, tmp_path) as client:
        sdk = connect(client)
        server.kill()
        for call in (sdk.models.list, lambda: sdk.images.generate(prompt="a red circle")):
            with pytest.raises(openai.InternalServerError) as raised:
                call()
            assert (raised.value.status_code, raised.value.code) == (503, "broker_unavailable")
            assert raised.value.response.headers["x-should-retry"] == "true"
    server.close()
