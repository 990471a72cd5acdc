from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest
from redis import Redis

from server.api.records import GenerationRecord
from server.broker import keys
from server.spec import GenerationState
from tests.api.house import Hands, soon, wait_until

Submit = Callable[..., str]
Start = Callable[..., httpx.Client]
UNKNOWN = "gen_" + 32 * "0"


def test_a_generation_is_accepted_with_everything_resolved(
    client: httpx.Client, hands: Hands
) -> None:
    answer = client.post("/v1/generations", json={"prompt": "a red circle"})
    record = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == record["urls"]["self"]
    assert GenerationRecord.model_validate(record, strict=False)
    assert (record["status"], record["queue_position"]) == ("queued", 0)
    assert record["created_at"].endswith("Z")
    spec = record["spec"]
    assert (spec["checkpoint"], spec["width"], spec["sampler"]) == ("demo", 128, "dpmpp_2m")
    assert 0 <= spec["seed"] < 2**32
    assert hands.queued() == 1
    assert client.get(record["urls"]["self"]).json()["spec"] == spec


def test_a_seed_is_drawn_anew_each_time(client: httpx.Client, submit: Submit) -> None:
    seeds = {client.get(f"/v1/generations/{submit()}").json()["spec"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_the_place_in_the_queue_is_told(client: httpx.Client, submit: Submit) -> None:
    first, second = submit(), submit()
    places = [
        client.get(f"/v1/generations/{id}").json()["queue_position"] for id in (first, second)
    ]
    assert places == [0, 1]
    assert client.post("/v1/generations", json={"prompt": "x"}).json()["queue_position"] == 2


def test_a_prediction_comes_from_the_pace_of_the_workers(start: Start) -> None:
    client = start()
    etas = [
        client.post("/v1/generations", json={"prompt": "x"}).json()["eta_seconds"] for _ in range(2)
    ]
    assert etas == [2.0, 4.0]


def test_a_running_one_tells_its_progress(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    hands.begin(id)
    hands.progress(id, 1)
    record = client.get(f"/v1/generations/{id}").json()
    assert record["status"] == "running"
    assert record["progress"] == {"steps_done": 1, "steps_total": 4, "fraction": 0.25}
    assert record["queue_position"] is None
    assert record["eta_seconds"] >= 0


def test_when_a_running_one_will_be_done_is_not_told_while_its_workers_are_dead(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    hands.begin(id)
    hands.progress(id, 1)
    read = lambda: client.get(f"/v1/generations/{id}").json()  # noqa: E731
    assert read()["eta_seconds"] is not None
    hands.redis.delete(keys.worker("hands"))  # as when its time to live is over
    wait_until(lambda: read()["eta_seconds"] is None)
    assert read()["status"] == "running"
    hands.serve(state="draining")
    wait_until(lambda: read()["eta_seconds"] is not None)


def test_a_finished_one_shows_its_images_and_where_time_went(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit(num_images=2)
    hands.begin(id)
    hands.succeed(id, b"one", b"two")
    record = client.get(f"/v1/generations/{id}").json()
    assert [image["index"] for image in record["images"]] == [0, 1]
    assert client.get(record["images"][1]["url"]).content == b"two"
    assert record["metrics"]["worker"] == "hands"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sampler": "euler", "eta": 0.5}, "eta_ignored"),
        ({"negative_prompt": "blue", "guidance_scale": 1.0}, "negative_prompt_ignored"),
        ({"guidance_rescale": 0.5, "guidance_scale": 0.0}, "guidance_rescale_ignored"),
        ({"guidance_end": 0.5, "guidance_scale": 1.0}, "guidance_end_ignored"),
    ],
)
def test_what_is_ignored_is_listed(
    client: httpx.Client, fields: dict[str, object], code: str
) -> None:
    record = client.post("/v1/generations", json={"prompt": "x"} | fields).json()
    assert [warning["code"] for warning in record["warnings"]] == [code]


def test_nothing_is_listed_where_nothing_is_ignored(client: httpx.Client) -> None:
    body = {"prompt": "x", "sampler": "ddim", "eta": 0.5, "negative_prompt": "y", "strict": True}
    assert client.post("/v1/generations", json=body).json()["warnings"] == []


def test_a_sampler_without_spaced_sigmas_gets_the_default_ones(client: httpx.Client) -> None:
    record = client.post("/v1/generations", json={"prompt": "x", "sampler": "pndm"}).json()
    assert record["spec"]["sigmas"] == "default"


def test_an_unserved_checkpoint_is_503(client: httpx.Client) -> None:
    body = {"prompt": "x", "checkpoint": "sd-v1-5"}
    answer = client.post("/v1/generations", json=body)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_full_queue_says_so_and_when_to_come_back(start: Start, hands: Hands) -> None:
    client = start(max_queued=1)
    assert client.post("/v1/generations", json={"prompt": "x"}).status_code == 202
    answer = client.post("/v1/generations", json={"prompt": "x"})
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.headers["retry-after"] == "2"
    assert hands.queued() == 1


def test_an_idempotency_key_replays(client: httpx.Client, hands: Hands) -> None:
    send = {"json": {"prompt": "x"}, "headers": {"Idempotency-Key": "order 81"}}
    first, second = (client.post("/v1/generations", **send) for _ in range(2))  # type: ignore[arg-type]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert first.json()["id"] == second.json()["id"]
    assert hands.queued() == 1


def test_a_replay_tells_the_place_in_the_queue(client: httpx.Client, submit: Submit) -> None:
    submit()
    send = {"json": {"prompt": "x"}, "headers": {"Idempotency-Key": "order 81"}}
    answers = [client.post("/v1/generations", **send) for _ in range(2)]  # type: ignore[arg-type]
    assert [answer.json()["queue_position"] for answer in answers] == [1, 1]


def test_the_same_key_with_another_body_is_a_conflict(client: httpx.Client, hands: Hands) -> None:
    headers = {"Idempotency-Key": "order 81"}
    client.post("/v1/generations", json={"prompt": "x"}, headers=headers)
    answer = client.post("/v1/generations", json={"prompt": "y"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_conflict")
    assert hands.queued() == 1


@pytest.mark.parametrize("key", ["", "a" * 256, "tab\tbed"])
def test_a_malformed_key_is_refused(client: httpx.Client, hands: Hands, key: str) -> None:
    headers = {"Idempotency-Key": key}
    answer = client.post("/v1/generations", json={"prompt": "x"}, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
    assert hands.queued() == 0


def test_a_queued_one_is_canceled_at_once(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    answers = [client.post(f"/v1/generations/{id}/cancel") for _ in range(2)]
    assert [(a.status_code, a.json()["status"]) for a in answers] == [(200, "canceled")] * 2
    assert hands.queued() == 0


def test_a_running_one_is_canceled_between_two_steps(
    client: httpx.Client, hands: Hands, redis: Redis, submit: Submit
) -> None:
    id = submit()
    hands.begin(id)
    with soon(lambda: hands.end(id, GenerationState.CANCELED)):
        answer = client.post(f"/v1/generations/{id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert redis.hget(keys.generation(id), "cancel_requested") == b"1"


def test_a_cancel_that_takes_longer_is_202(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    hands.begin(id)
    answer = client.post(f"/v1/generations/{id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "running")


def test_a_queued_one_expires_at_its_deadline(client: httpx.Client) -> None:
    body = {"prompt": "x", "num_inference_steps": 1, "deadline_seconds": 0.2}
    began = time.monotonic()
    answer = client.post("/v1/generations", json=body, headers={"Prefer": "wait=4"})
    assert (answer.json()["status"], answer.json()["error"]["code"]) == (
        "expired",
        "deadline_exceeded",
    )
    assert time.monotonic() - began < 2


def test_what_is_deleted_is_gone_with_its_images(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    hands.begin(id)
    [key] = hands.succeed(id)
    assert client.delete(f"/v1/generations/{id}").status_code == 204
    assert not (hands.images / key).exists()
    for path in ("", "/events", "/images/0"):
        answer = client.get(f"/v1/generations/{id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert client.delete(f"/v1/generations/{id}").status_code == 410
    assert client.get("/v1/generations").json()["generations"] == []


def test_deleting_a_running_one_cancels_it_first(
    client: httpx.Client, hands: Hands, submit: Submit
) -> None:
    id = submit()
    hands.begin(id)
    with soon(lambda: hands.end(id, GenerationState.CANCELED)):
        assert client.delete(f"/v1/generations/{id}").status_code == 204
    assert client.get(f"/v1/generations/{id}").status_code == 410


@pytest.mark.parametrize("id", [UNKNOWN, "gen_1", "..%2fsecret", "gen_" + 32 * "g"])
def test_an_unknown_id_is_404_everywhere(client: httpx.Client, id: str) -> None:
    asked = [
        client.get(f"/v1/generations/{id}"),
        client.get(f"/v1/generations/{id}/events"),
        client.get(f"/v1/generations/{id}/images/0"),
        client.post(f"/v1/generations/{id}/cancel"),
        client.delete(f"/v1/generations/{id}"),
    ]
    assert {answer.status_code for answer in asked} == {404}


def test_another_owners_generation_is_404(
    client: httpx.Client, hands: Hands, redis: Redis, submit: Submit
) -> None:
    id = submit()
    hands.succeed(id)
    redis.hset(keys.generation(id), "owner", "somebody")
    redis.rename(keys.owned("local"), keys.owned("somebody"))
    path = f"/v1/generations/{id}"
    asked = [
        client.get(path),
        client.get(f"{path}/events"),
        client.get(f"{path}/images/0"),
        client.post(f"{path}/cancel"),
        client.delete(path),
    ]
    assert [answer.status_code for answer in asked] == [404] * 5
    assert client.get("/v1/generations").json() == {"generations": [], "next": None}
    assert redis.hget(keys.generation(id), "status") == b"succeeded"


def test_pages_hold_every_generation_once_newest_first(
    client: httpx.Client, submit: Submit
) -> None:
    ids = [submit() for _ in range(7)]
    seen, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/generations", params=query).json()
        seen += [record["id"] for record in page["generations"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == ids[::-1]


def test_a_page_goes_on_where_its_last_generation_was_deleted(
    client: httpx.Client, submit: Submit
) -> None:
    ids = [submit() for _ in range(4)]
    page = client.get("/v1/generations", params={"limit": 2}).json()
    client.delete(f"/v1/generations/{ids[2]}")
    rest = client.get("/v1/generations", params={"limit": 2, "cursor": page["next"]}).json()
    assert [record["id"] for record in rest["generations"]] == [ids[1], ids[0]]


def test_a_list_can_be_of_one_state(client: httpx.Client, hands: Hands, submit: Submit) -> None:
    ids = [submit() for _ in range(3)]
    hands.begin(ids[1])
    page = client.get("/v1/generations", params={"state": "running"}).json()
    assert [record["id"] for record in page["generations"]] == [ids[1]]


def test_a_page_of_a_rare_state_looks_at_so_many_and_goes_on(
    client: httpx.Client, hands: Hands, redis: Redis, submit: Submit
) -> None:
    rare = submit()
    common: dict[bytes, bytes] = redis.hgetall(keys.generation(rare))  # type: ignore[assignment]
    hands.begin(rare)
    with redis.pipeline() as pipe:
        for number in range(1200):
            id, at = f"gen_{number:032x}", time.time() + number
            pipe.hset(keys.generation(id), mapping=common | {b"id": id, b"created_at": repr(at)})  # type: ignore[dict-item]
            pipe.zadd(keys.owned("local"), {id: at})
        pipe.execute()
    found, sizes, query = [], [], {"state": "running", "limit": "2"}
    while "cursor" not in query or query["cursor"]:
        redis.config_resetstat()
        page = client.get("/v1/generations", params=query).json()
        assert redis.info("commandstats")["cmdstat_hgetall"]["calls"] < 600  # type: ignore[index]
        found += [record["id"] for record in page["generations"]]
        sizes.append(len(page["generations"]))
        query["cursor"] = page["next"]
    assert found == [rare]
    assert sizes == [0, 0, 1]


@pytest.mark.parametrize("fields", [{}, {"strict": True}])
def test_strict_goes_to_the_worker_with_the_spec(
    client: httpx.Client, submit: Submit, fields: dict[str, object]
) -> None:
    spec = client.get(f"/v1/generations/{submit(**fields)}").json()["spec"]
    assert spec["strict"] is bool(fields)


def test_only_what_can_be_an_id_is_logged_as_one(
    client: httpx.Client, submit: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    id = submit()
    with caplog.at_level("INFO", "darkroom.api"):
        client.get("/v1/generations/x%0A00:00:00 ERROR forged")
        client.get(f"/v1/generations/{id}")
    looks = lambda: [r for r in caplog.records if r.getMessage().startswith("GET")]  # noqa: E731
    wait_until(lambda: len(looks()) == 2)
    assert [getattr(record, "generation", None) for record in looks()] == [None, id]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "cursor=x", "state=done", "stat=queued"])
def test_a_bad_query_names_the_parameter(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/v1/generations?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]
