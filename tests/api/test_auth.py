"""Who comes in, and for what: every route, with no key, a bad one, and one of another scope."""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import webuiapi
from fastapi.routing import APIRoute
from openai import AuthenticationError, OpenAI
from redis import Redis

from server.api import auth
from server.api.app import make_server
from server.api.auth import FAILURES, Guarded
from server.api.scopes import NEEDED
from server.broker import Scope, accounts, keys, sightings
from server.catalog import load_catalog
from server.config import Settings
from tests.api.house import Hands, bearer, gateway, key_of, wait_until
from tests.redis_server import RedisServer

ID = "gen_" + "0" * 32
PATHS = {"{id}": ID, "{index}": "0", "{name}": "demo", "{file}": "app.js"}
DOCS = {"/openapi.json", "/docs"}
GUARDED = [name for name, needed in NEEDED.items() if needed is not None]
UNKNOWN = f"dr_{'0' * 12}_{'x' * 43}"


@pytest.fixture(scope="module")
def shared_locked(server: RedisServer, folder: Path) -> Iterator[httpx.Client]:
    with gateway(server.url, folder) as client, Redis.from_url(server.url) as redis:
        key_of(redis)
        wait_until(lambda: client.get("/v1/queue").status_code == 401)
        yield client


@pytest.fixture
def locked(shared_locked: httpx.Client, hands: Hands) -> httpx.Client:
    """Of a gateway that wants keys, over an empty Redis with one worker."""
    return shared_locked


def ask(client: httpx.Client, name: str, **how: Any) -> httpx.Response:
    """Use the route of this name, such as `GET /v1/generations/{id}`."""
    method, _, path = name.partition(" ")
    for part, value in PATHS.items():
        path = path.replace(part, value)
    return client.request(method, path, **how)


def told(answer: httpx.Response) -> str:
    """The code of an error, in whatever dialect."""
    said = answer.json()
    return str(said["error"]["code"] if isinstance(said.get("error"), dict) else said["code"])


def test_every_route_of_the_gateway_is_in_the_table(server: RedisServer, tmp_path: Path) -> None:
    settings = Settings(redis=server.url, data_dir=tmp_path)
    routes = make_server(settings, load_catalog()).config.app.routes  # type: ignore[union-attr]
    doors = [route for route in routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes if route not in doors} == DOCS
    assert all(isinstance(route.app, Guarded) for route in doors)
    assert {f"{m} {route.path}" for route in doors for m in route.methods or ()} == set(NEEDED)


@pytest.mark.parametrize("name", NEEDED)
def test_without_a_key_only_what_is_public_answers(locked: httpx.Client, name: str) -> None:
    answer = ask(locked, name)
    assert (answer.status_code == 401) == (NEEDED[name] is not None)
    if NEEDED[name] is not None:
        native = not answer.request.url.path.startswith(("/sdapi", "/internal"))
        assert answer.headers["www-authenticate"].split()[0] == ("Bearer" if native else "Basic")
        assert told(answer) in ("unauthenticated", "invalid_api_key")


@pytest.mark.parametrize("name", GUARDED)
def test_every_key_that_is_not_good_gets_the_same_answer(
    locked: httpx.Client, redis: Redis, name: str
) -> None:
    revoked = key_of(redis)
    accounts.revoke(redis, revoked[3:15])
    expired = key_of(redis, expires_at=time.time() - 1)
    wrong = key_of(redis)[:-4] + "AAAA"
    bad = (UNKNOWN, wrong, revoked, expired, "sk-1234", "dr_")
    answers = [ask(locked, name, headers=bearer(key)) for key in bad]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert not any(key in answers[0].text for key in bad)


@pytest.mark.parametrize("scope", Scope)
def test_a_key_opens_what_its_scope_is_for(
    locked: httpx.Client, redis: Redis, scope: Scope
) -> None:
    key = key_of(redis, scopes=(scope,))
    rank = list(Scope).index
    for name, needed in NEEDED.items():
        if name.endswith("/events"):
            continue
        answer = ask(locked, name, headers=bearer(key))
        assert answer.status_code != 401, name
        refused = needed is not None and rank(needed) > rank(scope)
        assert (answer.status_code == 403) == refused, name
        if refused:
            assert f"`{needed}`" in answer.text, name
            assert told(answer) == "forbidden"


@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"authorization": f"Bearer {key}"},
        lambda key: {"authorization": f"bearer   {key}"},
        lambda key: {"x-api-key": key},
        lambda key: {"authorization": "Basic " + _basic(f"anybody:{key}")},
        lambda key: {"authorization": "Basic " + _basic(f"{key}:")},
        lambda key: {"authorization": "Basic " + _basic("proxy:pass"), "x-api-key": key},
    ],
)
def test_a_key_can_be_shown_in_several_ways(
    locked: httpx.Client, redis: Redis, headers: Callable[[str], dict[str, str]]
) -> None:
    assert locked.get("/v1/queue", headers=headers(key_of(redis))).status_code == 200


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_key_is_good_at_once_and_bad_at_once(locked: httpx.Client, redis: Redis) -> None:
    key = key_of(redis)
    assert locked.get("/v1/queue", headers=bearer(key)).status_code == 200
    accounts.revoke(redis, key[3:15])
    assert locked.get("/v1/queue", headers=bearer(key)).status_code == 401


def test_revoking_the_last_key_does_not_open_the_house(
    start: Callable[..., httpx.Client], redis: Redis
) -> None:
    client = start()
    assert client.get("/v1/queue").status_code == 200
    key = key_of(redis)
    wait_until(lambda: client.get("/v1/queue").status_code == 401)
    accounts.revoke(redis, key[3:15])
    assert start().get("/v1/queue").status_code == 401
    redis.flushall()
    assert client.get("/v1/queue").status_code == 401


def test_a_gateway_that_others_can_reach_wants_a_key_whatever_redis_says(
    start: Callable[..., httpx.Client],
) -> None:
    assert start(host="0.0.0.0").get("/v1/queue").status_code == 401
    assert start(host="0.0.0.0", insecure_no_auth=True).get("/v1/queue").status_code == 200


def test_without_redis_nobody_comes_in(tmp_path: Path) -> None:
    own = RedisServer()
    own.start()
    with gateway(own.url, tmp_path) as client, Redis.from_url(own.url) as redis:
        key = key_of(redis)
        wait_until(lambda: client.get("/v1/samplers").status_code == 401)
        own.kill()
        began = time.monotonic()
        answer = client.get("/v1/samplers", headers=bearer(key))
        assert time.monotonic() - began < 2
        assert (answer.status_code, told(answer)) == (503, "broker_unavailable")
        assert client.get("/v1/samplers").status_code == 401
        own.start()
        wait_until(lambda: client.get("/v1/samplers", headers=bearer(key)).status_code == 200)
    own.close()


def test_a_gateway_that_never_met_its_redis_lets_nobody_in(tmp_path: Path) -> None:
    with gateway(f"unix://{tmp_path}/none.sock", tmp_path) as client:
        assert client.get("/v1/samplers").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_what_is_kept_of_a_key_is_a_hash(redis: Redis) -> None:
    key = key_of(redis)
    secret = key.split("_", 2)[2]
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    kept = str([redis.dump(name) for name in redis.scan_iter()])
    assert secret not in kept
    assert secret not in str(redis.hgetall(keys.account(key[3:15])))


def test_no_key_is_in_a_log_or_a_metric(
    start: Callable[..., httpx.Client], redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client, key = start(), key_of(redis, scopes=("admin",))
    secret = key.split("_", 2)[2]
    wait_until(lambda: client.get("/v1/queue").status_code == 401)
    caplog.clear()
    for given in (key, key[:-1] + "-"):
        client.post("/v1/generations", headers=bearer(given), json={"prompt": "x"})
        client.post("/v1/generations", headers=bearer(given), content=b"{")
        client.get(f"/v1/generations/{given}", headers=bearer(given))
        client.get("/sdapi/v1/memory", auth=("me", given))
    counted = client.get("/metrics", headers=bearer(key)).text
    wait_until(lambda: any("GET /metrics" in r.getMessage() for r in caplog.records))
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert any("POST /v1/generations 202" in r.getMessage() for r in ours)
    logged = "".join(str(vars(record)) + record.getMessage() for record in ours)
    assert secret[:-1] not in logged + counted


def test_a_line_of_the_log_says_which_account_it_was(
    locked: httpx.Client, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "darkroom.api")
    key = key_of(redis)
    locked.get("/v1/samplers", headers=bearer(key))
    locked.get("/v1/samplers", headers=bearer(UNKNOWN))
    told_of: list[logging.LogRecord] = []

    def both() -> bool:  # a line is written after its answer
        told_of[:] = [r for r in caplog.records if "GET /v1/samplers" in r.getMessage()]
        return len(told_of) == 2

    wait_until(both)
    good, bad = told_of
    assert vars(good)["account"] == key[3:15]
    assert "account" not in vars(bad)


@pytest.mark.parametrize(
    "value",
    [
        b"Basic",
        b"Basic !!!",
        b"Basic /////w==",
        b"Basic \xff\xfe",
        b"Bearer",
        b"Bearer \xff\xfe",
        b"\xe9",
        b"Bearer dr_000000000000_" + b"x" * 30_000,
        b"Bearer dr_../../locked_" + b"x" * 43,
        b"Digest username=x",
    ],
)
def test_whatever_is_sent_as_a_key_is_401(locked: httpx.Client, value: bytes) -> None:
    for name in (b"authorization", b"x-api-key"):
        assert locked.get("/v1/queue", headers=[(name, value)]).status_code == 401


def test_a_key_comes_so_often_in_a_minute_and_is_told(locked: httpx.Client, redis: Redis) -> None:
    key = key_of(redis, requests_per_minute=3)
    answers = [locked.get("/v1/queue", headers=bearer(key)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert {a.headers["ratelimit-policy"] for a in answers} == {'"requests";q=3;w=60'}
    left = [a.headers["ratelimit"].split(";")[1] for a in answers]
    assert left == ["r=2", "r=1", "r=0", "r=0"]
    assert told(answers[3]) == "rate_limited"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert locked.get("/v1/queue", headers=bearer(key_of(redis))).status_code == 200
    missing = locked.get(f"/v1/generations/{ID}", headers=bearer(key_of(redis)))
    assert "ratelimit" not in missing.headers


def test_an_error_says_what_is_left_too(locked: httpx.Client, redis: Redis) -> None:
    key = key_of(redis, requests_per_minute=5)
    answer = locked.get(f"/v1/generations/{ID}", headers=bearer(key))
    assert (answer.status_code, answer.headers["ratelimit"].split(";")[1]) == (404, "r=4")


@pytest.mark.parametrize("quotas", [{}, {"max_concurrent": 2, "daily_seconds": 500.0}])
def test_what_is_accepted_says_it_too_beside_other_quotas(
    locked: httpx.Client, redis: Redis, quotas: dict[str, Any]
) -> None:
    key = key_of(redis, requests_per_minute=5, **quotas)
    answer = locked.post("/v1/generations", json={"prompt": "x"}, headers=bearer(key))
    assert answer.status_code == 202
    for name in ("ratelimit", "ratelimit-policy"):
        [line] = answer.headers.get_list(name)
        said = re.findall(r'"([a-z-]+)";', line)
        assert said == (["generations", "daily-seconds"] if quotas else []) + ["requests"]
    assert '"requests";r=4;t=' in answer.headers["ratelimit"]
    assert '"requests";q=5;w=60' in answer.headers["ratelimit-policy"]


def test_when_a_key_was_last_used_is_written_down_now_and_then(
    start: Callable[..., httpx.Client], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "WRITE_SECONDS", 0.05)
    key, other = key_of(redis), key_of(redis)
    client, began = start(), time.time()
    assert client.get("/v1/samplers", headers=bearer(key)).status_code == 200
    assert client.get("/v1/samplers", headers=bearer(other[:-4] + "AAAA")).status_code == 401
    wait_until(lambda: redis.zcard(keys.SEEN))
    [(id, seen)] = redis.zrange(keys.SEEN, 0, -1, withscores=True)
    assert id.decode() == key[3:15]
    assert (seen % 60, began - 60 <= seen <= time.time()) == (0, True)
    redis.zadd(keys.SEEN, {key[3:15]: seen + 600})
    client.get("/v1/samplers", headers=bearer(key))
    client.get("/v1/samplers", headers=bearer(key_of(redis)))
    wait_until(lambda: redis.zcard(keys.SEEN) == 2)
    assert redis.zscore(keys.SEEN, key[3:15]) == seen + 600, "another gateway knows better"


def test_a_request_costs_no_question_more_for_that(
    server: RedisServer, tmp_path: Path, redis: Redis
) -> None:
    key = key_of(redis)
    with gateway(server.url, tmp_path) as client:
        wait_until(lambda: client.get("/v1/samplers").status_code == 401)
        with redis.monitor() as monitor:
            for _ in range(3):
                client.get("/v1/samplers", headers=bearer(key))
            redis.echo("the end")
            asked = []
            for command in monitor.listen():
                if command["command"] == "ECHO the end":
                    break
                asked.append(command["command"])
        assert [each for each in asked if "seen" in each] == []
        assert sum(keys.account(key[3:15]) in each for each in asked) == 3
    assert redis.zcard(keys.SEEN) == 1, "it is written down when the gateway ends"


def test_an_admin_sees_what_every_key_has(locked: httpx.Client, redis: Redis, hands: Hands) -> None:
    shop = key_of(redis, "shop", daily_seconds=600.0)
    gone, admin = key_of(redis, "gone"), key_of(redis, "admin", scopes=("admin",))
    accounts.revoke(redis, gone[3:15])
    ids = [
        locked.post("/v1/generations", json={"prompt": "x"}, headers=bearer(shop)).json()["id"]
        for _ in range(3)
    ]
    hands.begin(ids[0])
    redis.zadd(keys.SEEN, {shop[3:15]: 1_700_000_000 // 60 * 60})
    assert locked.get("/v1/usage/accounts", headers=bearer(shop)).status_code == 403
    answer = locked.get("/v1/usage/accounts", headers=bearer(admin))
    known = {each["account"]["name"]: each for each in answer.json()["accounts"]}
    mine = known["shop"]
    assert (mine["queued"], mine["running"], mine["generations"]) == (2, 1, 3)
    assert mine["limits"]["daily_seconds"] == 600
    assert mine["account"]["last_used_at"] == "2023-11-14T22:13:00.000Z"
    assert [known[name]["account"]["state"] for name in ("gone", "admin")] == ["revoked", "good"]
    own = locked.get("/v1/usage", headers=bearer(shop)).json()
    assert own["account"].items() <= mine["account"].items()
    assert {field: mine[field] for field in own if field != "account"} == {
        field: value for field, value in own.items() if field != "account"
    }
    for key in (shop, gone, admin):
        assert key[16:] not in answer.text


def test_guessing_is_slow_and_keeps_nobody_else_out(
    start: Callable[..., httpx.Client], redis: Redis
) -> None:
    mine = key_of(redis)
    client = start()
    guess = mine[:16] + "A" * 43
    answers = [client.get("/v1/queue", headers=bearer(guess)) for _ in range(FAILURES + 1)]
    assert {answer.status_code for answer in answers[:-1]} == {401}
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert client.get("/v1/queue", headers=bearer(guess)).status_code == 429
    assert client.get("/v1/queue", headers=bearer(mine)).status_code == 200


def test_an_account_that_cannot_be_read_opens_nothing_and_hides_no_other(
    locked: httpx.Client, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = key_of(redis), key_of(redis)
    about = redis.hget(keys.account(broken[3:15]), "about")
    redis.hset(keys.account(broken[3:15]), "about", about.replace(b"generate", b"of-tomorrow"))
    assert locked.get("/v1/queue", headers=bearer(broken)).status_code == 401
    assert locked.get("/v1/queue", headers=bearer(good)).status_code == 200
    assert good[3:15] in [account.id for account in accounts.every(redis)]
    assert "an account cannot be read" in caplog.text


def test_a_stream_ends_soon_after_its_key(
    locked: httpx.Client, hands: Hands, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "AGAIN_SECONDS", 0.0)
    key = key_of(redis)
    id = locked.post("/v1/generations", json={"prompt": "x"}, headers=bearer(key)).json()["id"]
    with locked.stream("GET", f"/v1/generations/{id}/events", headers=bearer(key)) as stream:
        parts = stream.iter_text()
        assert "retry" in next(parts)
        accounts.revoke(redis, key[3:15])
        hands.begin(id)
        hands.succeed(id)
        assert "succeeded" not in "".join(parts)


def test_openai_clients_are_told_in_their_words(locked: httpx.Client, redis: Redis) -> None:
    base = f"{locked.base_url}/v1"
    with OpenAI(base_url=base, api_key="sk-nobody") as client:
        with pytest.raises(AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
    with OpenAI(base_url=base, api_key=key_of(redis)) as client:
        assert [model.id for model in client.models.list()] == ["demo"]


def test_a1111_clients_send_it_as_a_password(locked: httpx.Client, redis: Redis) -> None:
    api = webuiapi.WebUIApi(
        baseurl=f"{locked.base_url}/sdapi/v1", username="me", password=key_of(redis)
    )
    assert [model["model_name"] for model in api.get_sd_models()] == ["demo"]
    api.session.close()


def test_docs_can_be_switched_off(start: Callable[..., httpx.Client]) -> None:
    open_, shut = start(), start(docs=False)
    for path in ("/docs", "/openapi.json"):
        assert open_.get(path).status_code == 200
        assert shut.get(path).status_code == 404


class TestCheckpointsOfAKey:
    """A key that may draw with `any` alone, at a gateway with several."""

    @pytest.fixture
    def picky(self, atelier: httpx.Client, redis: Redis) -> Iterator[httpx.Client]:
        key = key_of(redis, checkpoints=("any",), scopes=("generate",))
        wait_until(lambda: atelier.get("/v1/queue").status_code == 401)
        with httpx.Client(base_url=atelier.base_url, headers=bearer(key)) as client:
            yield client

    def test_lists_show_no_others(self, picky: httpx.Client) -> None:
        for path in ("/v1/checkpoints", "/v1/queue", "/v1/capabilities"):
            shown = picky.get(path).json()["checkpoints"]
            assert {one.get("name") or one.get("checkpoint") for one in shown} == {"any"}, path
        assert picky.get("/v1/capabilities").json()["default_checkpoint"] == "any"
        assert [m["id"] for m in picky.get("/v1/models").json()["data"]] == ["any"]
        assert [m["model_name"] for m in picky.get("/sdapi/v1/sd-models").json()] == ["any"]
        assert picky.get("/v1/checkpoints/demo").status_code == 404

    @pytest.mark.parametrize(
        ("path", "sent"),
        [
            ("/v1/generations", {"checkpoint": "demo"}),
            ("/v1/generations", {"refiner": {"checkpoint": "demo"}}),
            ("/v1/generations", {"upscaler": {"checkpoint": "x4"}}),
            ("/v1/tokenize", {"checkpoint": "demo"}),
            ("/v1/images/generations", {"model": "demo"}),
            ("/sdapi/v1/txt2img", {"override_settings": {"sd_model_checkpoint": "demo"}}),
            ("/sdapi/v1/options", {"sd_model_checkpoint": "demo"}),
        ],
    )
    def test_others_are_forbidden(
        self, picky: httpx.Client, redis: Redis, path: str, sent: dict[str, Any]
    ) -> None:
        answer = picky.post(path, json={"prompt": "x"} | sent if "options" not in path else sent)
        assert (answer.status_code, told(answer)) == (403, "forbidden"), answer.text
        assert "any" in json.dumps(answer.json())

    def test_without_a_name_its_own_is_meant(self, picky: httpx.Client) -> None:
        answer = picky.post("/v1/generations", json={"prompt": "x"})
        assert answer.json()["spec"]["checkpoint"] == "any", answer.text
