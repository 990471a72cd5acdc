"""Settings, progress and interrupt belong to their caller alone."""

from __future__ import annotations

import base64
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from server.spec import GenerationState
from tests.api.a1111.conftest import Studio, told
from tests.api.house import Hands, gateway, wait_until
from tests.api.pictures import picture, text
from tests.redis_server import RedisServer

Pool = Callable[..., "Future[httpx.Response]"]
IDLE = {"progress": 0.0, "count": 0}


@pytest.fixture
def later() -> Iterator[Pool]:
    """Calls on other threads."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def another(door: httpx.Client) -> httpx.Client:
    return httpx.Client(base_url=door.base_url, timeout=15)


@contextmanager
def known(door: httpx.Client) -> Iterator[httpx.Client]:
    """Another caller, who has been given a cookie."""
    with another(door) as client:
        client.get("/scripts")
        assert client.cookies["darkroom_session"]
        yield client


def seen(door: httpx.Client) -> dict[str, Any]:
    found = door.get("/progress").json()
    return {"progress": found["progress"], "count": found["state"]["job_count"]}


@contextmanager
def held(door: httpx.Client, studio: Studio, later: Pool) -> Iterator[Future[httpx.Response]]:
    """A picture of the caller's that is begun and not finished."""
    studio.holding = True
    before = len(studio.ids)
    answer = later(door.post, "/txt2img", json={"prompt": "a red circle"})
    studio.await_begun(before + 1)
    yield answer


def test_a_caller_is_known_again_by_a_cookie_that_no_script_reads(door: httpx.Client) -> None:
    first = door.get("/options")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "set-cookie" not in door.get("/options").headers
    forged = httpx.get(f"{door.base_url}options", cookies={"darkroom_session": "x y"})
    assert "set-cookie" in forged.headers


def test_other_cookies_beside_it_do_no_harm(door: httpx.Client) -> None:
    door.get("/options")
    own = f"darkroom_session={door.cookies['darkroom_session']}"
    door.cookies.clear()
    for sent in (f'a="{chr(92) * 50_000}"; {own}', f"é; {own};", f"{own}; darkroom_session=x"):
        began = time.perf_counter()
        answer = door.get("/options", headers={"Cookie": sent.encode("latin-1")})
        assert "set-cookie" not in answer.headers
        assert time.perf_counter() - began < 2, "Python takes quotes apart in quadratic time"


def test_options_are_routing_for_one_caller(door: httpx.Client, studio: Studio) -> None:
    with known(door) as mine, known(door) as yours:
        posted = mine.post("/options", json={"sd_model_checkpoint": "any"})
        assert (posted.status_code, posted.json()) == (200, None)
        assert mine.get("/options").json()["sd_model_checkpoint"] == "any"
        assert yours.get("/options").json()["sd_model_checkpoint"] == "demo"
        mine.post("/txt2img", json={})
        yours.post("/txt2img", json={})
    assert [spec.checkpoint for spec in studio.specs] == ["any", "demo"]


def test_a_setting_made_before_there_was_a_cookie_is_still_the_callers(
    door: httpx.Client, studio: Studio
) -> None:
    door.post("/options", json={"sd_model_checkpoint": "any"})
    door.post("/txt2img", json={})
    with another(door) as without_cookie:
        without_cookie.post("/txt2img", json={})
    assert [spec.checkpoint for spec in studio.specs] == ["any", "any"]


def test_all_options_can_be_posted_back(door: httpx.Client, redis: Redis) -> None:
    options = door.get("/options").json()
    answer = door.post("/options", json=options)
    assert (answer.status_code, answer.json()) == (200, None)
    assert "darkroom-warnings" not in answer.headers
    assert redis.keys("darkroom:settings:*") == [], "they were no wish of the caller's"
    assert door.get("/options").json() == options


def test_strange_options_are_swallowed_by_name(door: httpx.Client) -> None:
    answer = door.post("/options", json={"eta_noise_seed_delta": 31337, "sd_vae": "sharper"})
    assert (answer.status_code, answer.json()) == (200, None)
    assert answer.headers["darkroom-warnings"] == "eta_noise_seed_delta_ignored"
    assert door.get("/options").json()["sd_vae"] == "sharper"


def test_a_model_that_is_not_there_is_no_setting(door: httpx.Client) -> None:
    answer = door.post("/options", json={"sd_model_checkpoint": "nope [123]"})
    assert (answer.status_code, answer.json()["error"]) == (404, "HTTPException")


def test_settings_are_forgotten_at_last(door: httpx.Client, redis: Redis) -> None:
    door.post("/options", json={"sd_model_checkpoint": "any"})
    found: Any = redis.keys("darkroom:settings:*")
    assert found
    assert all(0 < redis.ttl(key) <= 7 * 86_400 for key in found)  # type: ignore[operator]
    assert b"127.0.0.1" not in b"".join(found)


def test_settings_are_kept_of_so_many_callers(
    door: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.broker.sessions.MOST_CALLERS", 3)
    door.get("/options")
    for layers in range(1, 5):
        with known(door) as other:
            other.post("/options", json={"CLIP_stop_at_last_layers": layers + 1})
    door.post("/options", json={"sd_model_checkpoint": "any"})
    assert door.get("/options").json()["sd_model_checkpoint"] == "any"
    assert len(redis.keys("darkroom:settings:*")) == 3  # type: ignore[arg-type]
    assert redis.zcard("darkroom:callers") == 3


def test_nothing_drawn_is_told_as_a1111_tells_it(door: httpx.Client) -> None:
    idle = door.get("/progress").json()
    assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)
    assert (idle["current_image"], idle["eta_relative"]) == (None, 0.0)


def test_progress_shows_what_is_drawn_for_the_caller(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    with known(door) as mine, known(door) as yours, held(mine, studio, later) as answer:
        id = studio.ids[0]
        assert seen(mine) == {"progress": 0.01, "count": 1}
        studio.hands.progress(id, 10, 20)
        studio.hands.show(id, picture(form="JPEG"))
        found = mine.get("/progress").json()
        assert (found["progress"], found["state"]["sampling_step"]) == (0.5, 10)
        assert found["state"]["sampling_steps"] == 20
        assert base64.b64decode(found["current_image"]) == picture(form="JPEG")
        skipped = mine.get("/progress", params={"skip_current_image": "true"}).json()
        assert skipped["current_image"] is None
        assert seen(yours) == IDLE
        studio.finish(id)
        assert answer.result().status_code == 200
        assert seen(mine) == IDLE


def test_interrupt_stops_the_callers_own_and_nobody_elses(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    with known(door) as mine, known(door) as yours:
        with held(mine, studio, later) as my_answer, held(yours, studio, later) as your_answer:
            assert yours.post("/interrupt").json() == {}
            interrupted = your_answer.result()
            assert not my_answer.done()
            studio.finish(studio.ids[0])
            assert len(my_answer.result().json()["images"]) == 1
        assert (interrupted.status_code, interrupted.json()["images"]) == (200, [])
        info = told(interrupted)
        assert info["interrupted"]
        assert info["infotexts"]
        assert seen(yours) == IDLE


def test_interrupt_with_nothing_to_stop_is_fine(door: httpx.Client) -> None:
    assert door.post("/interrupt").json() == {}
    assert door.post("/skip").json() is None


def test_who_brings_no_cookie_is_known_by_address(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    with known(door) as other, held(other, studio, later) as others:
        with another(door) as first, held(first, studio, later) as answer:
            with another(door) as second:  # as SillyTavern does, which keeps no cookies
                assert seen(second)["count"] == 1
                second.cookies.clear()
                second.post("/interrupt")
            assert answer.result().json()["images"] == []
        assert not others.done()
        studio.finish(studio.ids[0])


def test_what_was_begun_before_there_was_a_cookie_is_still_the_callers(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    with another(door) as client, held(client, studio, later) as answer:
        for _ in range(2):  # with the first, the cookie comes
            assert seen(client)["count"] == 1
        assert client.cookies
        client.post("/interrupt")
        assert answer.result().json()["images"] == []


def test_who_has_a_cookie_touches_nothing_that_others_began_without_one(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    with known(door) as client, another(door) as other, held(other, studio, later) as answer:
        assert seen(client) == IDLE
        client.post("/interrupt")
        studio.finish(studio.ids[0])
        assert len(answer.result().json()["images"]) == 1


def test_who_keeps_no_cookies_leaves_nothing_behind_for_looking(
    door: httpx.Client, studio: Studio, later: Pool, redis: Redis
) -> None:
    with another(door) as client, held(client, studio, later) as answer:
        for _ in range(5):
            client.cookies.clear()
            assert seen(client)["count"] == 1
        assert len(redis.keys("darkroom:drawing:*")) == 1  # type: ignore[arg-type]
        studio.finish(studio.ids[0])
        assert len(answer.result().json()["images"]) == 1
    assert redis.keys("darkroom:drawing:*") == []


def test_the_newest_of_very_many_are_known(
    door: httpx.Client, studio: Studio, later: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.broker.sessions.MOST_DRAWING", 2)
    door.get("/options")
    with held(door, studio, later), held(door, studio, later), held(door, studio, later):
        assert seen(door)["count"] == 2
        for id in studio.ids:
            studio.finish(id)


def test_interrupt_works_after_the_client_has_left(
    door: httpx.Client, studio: Studio, redis: Redis
) -> None:
    studio.holding = True
    with another(door) as leaving:
        leaving.timeout = httpx.Timeout(0.3)
        with pytest.raises(httpx.ReadTimeout):
            leaving.post("/txt2img", json={})
    id = studio.await_begun()
    door.post("/interrupt")
    wait_until(lambda: redis.hget(f"darkroom:generation:{id}", "status") == b"canceled")


def test_skip_stops_the_oldest_alone(door: httpx.Client, studio: Studio, later: Pool) -> None:
    with (
        known(door) as mine,
        held(mine, studio, later) as first,
        held(mine, studio, later) as second,
    ):
        assert mine.post("/skip").json() is None
        assert first.result().json()["images"] == []
        studio.finish(studio.ids[1])
        assert len(second.result().json()["images"]) == 1


def test_a_task_is_found_by_the_name_that_its_caller_gave_it(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    studio.holding = True
    with known(door) as mine:
        root = str(mine.base_url).removesuffix("/sdapi/v1/")
        answer = later(mine.post, "/txt2img", json={"force_task_id": "task(1)"})
        id = studio.await_begun()
        studio.hands.progress(id, 5, 20)
        sent = {"id_task": "task(1)", "id_live_preview": -1}
        found = mine.post(f"{root}/internal/progress", json=sent).json()
        assert (found["active"], found["completed"], found["progress"]) == (True, False, 0.25)
        pending = mine.get(f"{root}/internal/pending-tasks").json()
        assert pending == {"size": 1, "tasks": ["task(1)"]}
        studio.finish(id)
        answer.result()
        assert mine.post(f"{root}/internal/progress", json=sent).json()["completed"]
        assert mine.get(f"{root}/internal/pending-tasks").json() == {"size": 0, "tasks": []}


def test_tasks_of_one_name_are_each_stopped(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    door.get("/options")
    studio.holding = True
    answers = [later(door.post, "/txt2img", json={"force_task_id": "same"}) for _ in range(2)]
    studio.await_begun(2)
    assert seen(door)["count"] == 2
    door.post("/interrupt")
    assert [answer.result().json()["images"] for answer in answers] == [[], []]


def test_what_was_sent_is_not_kept_while_its_client_waits(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    door.get("/options")
    studio.holding = True
    sent = {"init_images": [text(picture(64, 64) + bytes(2**20))]}
    tracemalloc.start()
    try:
        answer = later(door.post, "/img2img", json=sent)
        id = studio.await_begun()
        found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/server/*")])
    finally:
        tracemalloc.stop()
    studio.finish(id)
    assert answer.result().status_code == 200
    assert sum(each.size for each in found.statistics("filename")) < 2**20


def test_a_retry_that_says_so_joins_what_is_drawn(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    with known(door) as mine, held(mine, studio, later) as first:
        body = {"prompt": "a red circle"}
        again = later(mine.post, "/txt2img", json=body, headers={"x-stainless-retry-count": "1"})
        threading.Event().wait(0.2)
        studio.finish(studio.ids[0])
        ids = {told(each.result())["darkroom_generation"] for each in (first, again)}
        assert ids == {studio.ids[0]}


def test_a_failure_is_told_as_a1111_names_it(
    door: httpx.Client, studio: Studio, later: Pool
) -> None:
    with held(door, studio, later) as answer:
        studio.hands.end(
            studio.ids[0], GenerationState.FAILED, "out_of_memory", "it does not fit the device"
        )
        problem = answer.result()
        assert (problem.status_code, problem.json()["error"]) == (500, "OutOfMemoryError")


def test_a_checkpoint_that_nobody_serves_can_be_asked_for_later(
    door: httpx.Client, painter: Hands
) -> None:
    body = {"override_settings": {"sd_model_checkpoint": "sd-v1-5"}}
    answer = door.post("/txt2img", json=body)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    assert int(answer.headers["retry-after"]) >= 1


def test_what_takes_longer_than_an_answer_is_held_back_goes_on(
    start: Callable[..., httpx.Client],
) -> None:
    client = start(max_wait_seconds=0.2)
    answer = client.post("/sdapi/v1/txt2img", json={"prompt": "a red circle"})
    assert (answer.status_code, answer.json()["code"]) == (503, "still_drawing")
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 1


def test_an_idempotency_key_replays_the_first_answer(door: httpx.Client, studio: Studio) -> None:
    sent = {"json": {"prompt": "a red circle"}, "headers": {"Idempotency-Key": "once"}}
    first, again = (door.post("/txt2img", **sent) for _ in range(2))  # type: ignore[arg-type]
    assert first.json()["images"] == again.json()["images"]
    assert told(first)["darkroom_generation"] == told(again)["darkroom_generation"]
    assert len(studio.specs) == 1
    other = door.post("/txt2img", json={"prompt": "x"}, headers={"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


def test_without_redis_menus_are_filled_and_the_rest_can_be_asked_for_later(
    folder: Path,
) -> None:
    redis = RedisServer()
    redis.start()
    with gateway(redis.url, folder) as client:
        redis.close()
        for path in ("samplers", "upscalers", "sd-models", "scripts"):
            assert client.get(f"/sdapi/v1/{path}").status_code == 200
        for path in ("options", "progress"):
            answer = client.get(f"/sdapi/v1/{path}")
            assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
        assert client.post("/sdapi/v1/txt2img", json={}).status_code == 503
