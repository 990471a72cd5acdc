"""What cannot be drawn is refused in words that name the field, and nothing is queued."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from server.api.schemas import GenerationRequest
from tests.api.house import Hands

JSON = {"Content-Type": "application/json"}


def with_prompt(**fields: Any) -> bytes:
    return json.dumps({"prompt": "a red circle"} | fields).encode()


BAD: dict[str, tuple[bytes, int, str, str | None]] = {
    "an empty body": (b"", 400, "bad_request", None),
    "only blanks": (b" \n", 400, "bad_request", None),
    "not JSON": (b"prompt=a", 400, "bad_request", None),
    "half of a JSON object": (b'{"prompt": "a', 400, "bad_request", None),
    "not UTF-8": (b'{"prompt": "\xff"}', 400, "bad_request", None),
    "half a surrogate pair": (b'{"prompt": "\\ud800"}', 400, "bad_request", None),
    "deep nesting": (b'{"prompt": ' + b"[" * 100_000, 400, "bad_request", None),
    "a list": (b"[]", 422, "invalid_request", ""),
    "null": (b"null", 422, "invalid_request", ""),
    "no prompt": (b"{}", 422, "invalid_request", "prompt"),
    "a prompt of null": (b'{"prompt": null}', 422, "invalid_request", "prompt"),
    "a number as prompt": (b'{"prompt": 1}', 422, "invalid_request", "prompt"),
    "NUL in the prompt": (b'{"prompt": "a\\u0000b"}', 422, "invalid_spec", "prompt"),
    "an escape in the prompt": (b'{"prompt": "\\u001b[31m"}', 422, "invalid_spec", "prompt"),
    "a long prompt": (with_prompt(prompt="a" * 100_000), 422, "invalid_spec", "prompt"),
    "an unknown field": (with_prompt(steps=4), 422, "invalid_request", "steps"),
    "a field twice": (
        b'{"prompt": "a", "seed": 1, "seed": 2}',
        422,
        "invalid_request",
        "seed",
    ),
    "steps as text": (
        with_prompt(num_inference_steps="20"),
        422,
        "invalid_request",
        "num_inference_steps",
    ),
    "steps as a boolean": (
        with_prompt(num_inference_steps=True),
        422,
        "invalid_request",
        "num_inference_steps",
    ),
    "half a step": (
        with_prompt(num_inference_steps=2.5),
        422,
        "invalid_request",
        "num_inference_steps",
    ),
    "no steps": (
        with_prompt(num_inference_steps=0),
        422,
        "invalid_request",
        "num_inference_steps",
    ),
    "a billion steps": (
        with_prompt(num_inference_steps=10**9),
        422,
        "invalid_spec",
        "num_inference_steps",
    ),
    "more steps than lcm's schedule has": (
        with_prompt(num_inference_steps=51, sampler="lcm"),
        422,
        "invalid_spec",
        "num_inference_steps",
    ),
    "a text encoder without layers": (
        with_prompt(clip_skip=2),
        422,
        "invalid_spec",
        "clip_skip",
    ),
    "guidance that ends before it begins": (
        with_prompt(guidance_end=0),
        422,
        "invalid_request",
        "guidance_end",
    ),
    "guidance beyond the end": (
        with_prompt(guidance_end=1.5),
        422,
        "invalid_request",
        "guidance_end",
    ),
    "no whole call": (with_prompt(cache_interval=0), 422, "invalid_request", "cache_interval"),
    "a whole call in eleven": (
        with_prompt(cache_interval=11),
        422,
        "invalid_request",
        "cache_interval",
    ),
    "400 digits of steps": (
        with_prompt(num_inference_steps=10**400),
        422,
        "invalid_spec",
        "num_inference_steps",
    ),
    "width 7": (with_prompt(width=7), 422, "invalid_spec", "width"),
    "an odd height": (with_prompt(height=100), 422, "invalid_spec", "height"),
    "a huge side": (with_prompt(width=4096), 422, "invalid_spec", "width"),
    "a negative side": (with_prompt(width=-128), 422, "invalid_spec", "width"),
    "too many pixels": (
        with_prompt(checkpoint="sd-v1-5", width=2048, height=2048),
        422,
        "invalid_spec",
        "width",
    ),
    "no images": (with_prompt(num_images=0), 422, "invalid_request", "num_images"),
    "too many images": (with_prompt(num_images=17), 422, "invalid_spec", "num_images"),
    "NaN": (b'{"prompt": "a", "guidance_scale": NaN}', 422, "invalid_request", "guidance_scale"),
    "infinity": (b'{"prompt": "a", "eta": Infinity}', 422, "invalid_request", "eta"),
    "NaN for a whole number": (b'{"prompt": "a", "width": NaN}', 422, "invalid_request", "width"),
    "guidance beyond the card": (
        with_prompt(guidance_scale=51),
        422,
        "invalid_spec",
        "guidance_scale",
    ),
    "negative guidance": (with_prompt(guidance_scale=-1), 422, "invalid_request", "guidance_scale"),
    "eta above 1": (with_prompt(eta=1.5), 422, "invalid_request", "eta"),
    "a negative seed": (with_prompt(seed=-1), 422, "invalid_request", "seed"),
    "a seed beyond JavaScript": (with_prompt(seed=2**53), 422, "invalid_request", "seed"),
    "seeds that run out": (
        with_prompt(seed=2**53 - 1, num_images=2),
        422,
        "invalid_spec",
        "seed",
    ),
    "an unknown sampler": (with_prompt(sampler="magic"), 422, "invalid_request", "sampler"),
    "sigmas without a choice": (
        with_prompt(sampler="ddim", sigmas="karras"),
        422,
        "invalid_spec",
        "sigmas",
    ),
    "an unknown task": (with_prompt(task="video"), 422, "invalid_request", "task"),
    "an unknown checkpoint": (
        with_prompt(checkpoint="../etc/passwd"),
        422,
        "unknown_checkpoint",
        "checkpoint",
    ),
    "a deadline in the past": (
        with_prompt(deadline_seconds=0),
        422,
        "invalid_request",
        "deadline_seconds",
    ),
    "a warning under strict": (
        with_prompt(sampler="euler", eta=0.5, strict=True),
        422,
        "invalid_spec",
        "eta",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_it_is_refused_and_nothing_is_queued(client: httpx.Client, hands: Hands, case: str) -> None:
    body, status, code, field = BAD[case]
    answer = client.post("/v1/generations", content=body, headers=JSON)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert (problem["status"], problem["type"]) == (status, f"urn:darkroom:problem:{code}")
    assert field is None or field in [error["field"] for error in problem["errors"]]
    assert len(answer.content) < 4000, "the input is not echoed"
    assert hands.queued() == 0
    assert client.get("/v1/generations").json()["generations"] == []


def test_the_refusal_says_what_would_be_right(client: httpx.Client) -> None:
    answer = client.post("/v1/generations", content=with_prompt(width=7), headers=JSON)
    assert answer.json()["detail"] == "width 7: must be a multiple of 8 between 64 and 512"


def test_all_wrong_fields_are_named_at_once(client: httpx.Client) -> None:
    body = with_prompt(width=7, height=9, num_images=99)
    errors = client.post("/v1/generations", content=body, headers=JSON).json()["errors"]
    assert [error["field"] for error in errors] == ["width", "height", "num_images"]


def test_a_near_miss_is_recognised(client: httpx.Client) -> None:
    answer = client.post("/v1/generations", content=with_prompt(num_image=1), headers=JSON)
    assert "did you mean num_images?" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 4}, "steps: there is no such field; here it is called num_inference_steps"),
        ({"CFG_scale": 4}, "here it is called guidance_scale"),
        ({"sampler_name": "Euler"}, "here it is called sampler"),
        ({"n": 2}, "n: there is no such field; here it is called num_images"),
        ({"hires": {"steps": 4}}, "hires.steps: there is no such field; here it is called num_inf"),
        ({"loras": [{"nam": "a"}]}, "loras.0.nam: there is no such field; did you mean name?"),
    ],
)
def test_the_word_of_another_server_is_translated(
    client: httpx.Client, fields: dict[str, Any], said: str
) -> None:
    answer = client.post("/v1/generations", content=with_prompt(**fields), headers=JSON)
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("fields", [{"sweep": {"eta": [0.5]}}, {"step": 4}, {"mask_blur": 4}])
def test_only_what_is_close_and_at_the_same_place_is_proposed(
    client: httpx.Client, fields: dict[str, Any]
) -> None:
    answer = client.post("/v1/generations", content=with_prompt(**fields), headers=JSON)
    [error] = answer.json()["errors"]
    assert error["message"] == f"{error['field']}: there is no such field"


def test_a_bad_name_is_refused_in_words(client: httpx.Client) -> None:
    body = with_prompt(loras=[{"name": "a/b"}], vae="../c")
    errors = client.post("/v1/generations", content=body, headers=JSON).json()["errors"]
    assert [error["field"] for error in errors] == ["loras.0.name", "vae"]
    for error in errors:
        assert "must be a file's name of 1 to 128 characters, without a folder" in error["message"]
    cursor = client.get("/v1/generations", params={"cursor": "x"}).json()["errors"][0]
    assert cursor["message"] == "cursor: is not of the right form"


def test_null_is_as_good_as_left_out_for_everything_but_the_prompt(client: httpx.Client) -> None:
    nulls = dict.fromkeys(set(GenerationRequest.model_fields) - {"prompt"})
    answer = client.post("/v1/generations", content=with_prompt(**nulls), headers=JSON)
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["task"] == "text-to-image"
    assert answer.json()["spec"]["strict"] is False
    lora = with_prompt(loras=[{"name": "a", "scale": None}])
    answer = client.post("/v1/generations", content=lora, headers=JSON)
    assert answer.json()["spec"]["loras"] == [{"name": "a", "scale": 1.0}]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_declared_to_be_json_is_415(
    client: httpx.Client, hands: Hands, kind: str
) -> None:
    answer = client.post("/v1/generations", content=with_prompt(), headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert hands.queued() == 0


def test_a_json_dialect_with_a_charset_is_read(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/vnd.me+json; charset=utf-8"}
    answer = client.post("/v1/generations", content=with_prompt(), headers=headers)
    assert answer.status_code == 202


def test_a_body_announced_as_too_large_is_refused_before_it_is_sent(client: httpx.Client) -> None:
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    with closing(connection):
        connection.putrequest("POST", "/v1/generations")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(40 * 2**20))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["code"]) == (413, "body_too_large")


def test_a_body_of_40_mb_without_a_length_is_refused_while_it_is_sent(
    client: httpx.Client, hands: Hands
) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(40):
            sent += 1
            yield b"a" * 2**20

    try:
        answer = client.post("/v1/generations", content=chunks(), headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    except (httpx.WriteError, httpx.ReadError):
        assert sent < 40, "the gateway hung up early"
    assert hands.queued() == 0


def test_an_unknown_path_and_a_wrong_method_are_problems_too(client: httpx.Client) -> None:
    missing, wrong = client.get("/v1/nothing"), client.put("/v1/generations")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, POST"


def test_every_answer_carries_the_security_headers(client: httpx.Client) -> None:
    for path in ("/v1/samplers", "/v1/nothing", "/healthz"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
