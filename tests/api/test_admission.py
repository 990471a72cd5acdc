"""What is accepted, what is refused with a time to come back, and when it will be done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from server.broker import Broker, Terms, keys, line
from server.errors import DarkroomError, DeadlineUnmeetable, QueueFull, QuotaExceeded
from server.forecast import Speed
from server.spec import AnySpec
from tests.api.house import RETENTION, SPEED, Hands, bearer, key_of, wait_until
from tests.builders import a_spec
from tests.redis_server import RedisServer

Start = Callable[..., httpx.Client]

SECONDS = 2.0
"""The demo checkpoint's 20 steps, of which the hands' worker takes ten a second, sharing none."""
SHARING = Speed(native_pixels=128 * 128, curve=((2, 0.1), (8, 0.4)), full_rows=8)
ROOMY = Speed(native_pixels=128 * 128, curve=((2, 0.1), (8, 0.1)), full_rows=8)


def post(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/generations", json={"prompt": "a red circle"} | fields)


def test_the_end_is_predicted_from_what_is_ahead(start: Start) -> None:
    client = start()
    etas = [post(client).json()["eta_seconds"] for _ in range(3)]
    assert etas == [SECONDS, 2 * SECONDS, 3 * SECONDS]


def test_two_workers_halve_the_wait(start: Start, hands: Hands) -> None:
    hands.serve(name="another")
    client = start()
    etas = [post(client).json()["eta_seconds"] for _ in range(3)]
    assert etas == [SECONDS, SECONDS, 2 * SECONDS]


def test_what_workers_hold_counts_as_ahead(start: Start, hands: Hands) -> None:
    hands.serve(work_seconds=5.0, held_seconds=5.0, rows=2)
    assert post(start()).json()["eta_seconds"] == 5.0 + SECONDS


def test_a_prediction_knows_size_steps_images_and_calls_that_are_shared(
    start: Start, hands: Hands
) -> None:
    hands.serve(speed=ROOMY)
    client = start()
    told = [
        post(client, seed=1, **fields).json()["eta_seconds"]
        for fields in (
            {"num_inference_steps": 10},
            {"num_inference_steps": 5, "num_images": 4},
            {"num_inference_steps": 5, "width": 256, "height": 256, "guidance_scale": 1},
        )
    ]
    # Four pictures share each step, which takes no longer, but then there is no room beside them.
    assert told == pytest.approx([1.0, 0.25 + 0.5, 0.75 + 0.5])


def test_who_would_wait_longer_than_the_bound_is_told_when_to_come_back(
    start: Start, hands: Hands
) -> None:
    client = start(max_queued_seconds=3.5 * SECONDS)
    answers = [post(client) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [202] * 4 + [503] * 2
    assert {answer.json()["code"] for answer in answers[4:]} == {"queue_full"}
    # Half a generation must be drawn before there is room, for the next one another whole one.
    assert [answer.headers["retry-after"] for answer in answers[4:]] == ["1", "3"]
    assert hands.queued() == 4


def test_a_burst_is_let_in_as_far_as_workers_have_room_and_then_told_when_to_come_back(
    start: Start, hands: Hands
) -> None:
    hands.serve(speed=SHARING)
    client = start(max_queued_seconds=4 * SECONDS)
    answers = [post(client, seed=number) for number in range(10)]
    assert [answer.status_code for answer in answers] == [202] * 5 + [503] * 5
    # The worker takes in four, which slow each other down; the fifth begins when they are done.
    etas = [answer.json()["eta_seconds"] for answer in answers[:5]]
    assert etas == [SECONDS, 2 * SECONDS, 3 * SECONDS, 4 * SECONDS, 8 * SECONDS]
    told = [int(answer.headers["retry-after"]) for answer in answers[5:]]
    assert told == sorted(told)
    assert told[-1] - told[0] == 4 * SECONDS
    # As soon as they are in its hands, nothing changes: they are counted once, here or there.
    for answer in answers[:4]:
        id = answer.json()["id"]
        line.take(hands.redis, keys.line("demo"), id)
        hands.begin(id)
    hands.serve(speed=SHARING, rows=8, held_seconds=4 * SECONDS, work_seconds=4 * SECONDS)
    assert post(client, seed=100).status_code == 503
    assert client.get(answers[4].json()["urls"]["self"]).json()["eta_seconds"] == 8 * SECONDS


def test_a_deadline_that_the_company_makes_impossible_is_refused(
    start: Start, hands: Hands
) -> None:
    hands.serve(speed=SHARING)
    client = start()
    answers = [post(client, deadline_seconds=3.1 * SECONDS) for _ in range(6)]
    # A prediction may be too long by a third.
    assert [answer.status_code for answer in answers] == [202] * 4 + [503] * 2
    assert answers[4].json()["code"] == "deadline_unmeetable"


def test_an_empty_queue_takes_what_is_longer_than_the_bound(start: Start) -> None:
    client = start(max_queued_seconds=1.0)
    assert post(client, num_inference_steps=100).status_code == 202


def test_a_deadline_that_the_queue_makes_impossible_is_refused_at_the_door(
    start: Start, hands: Hands
) -> None:
    client = start()
    for _ in range(3):
        post(client)
    refused = post(client, deadline_seconds=2.5 * SECONDS)
    assert (refused.status_code, refused.json()["code"]) == (503, "deadline_unmeetable")
    assert refused.headers["retry-after"] == "2"
    assert post(client, deadline_seconds=4.5 * SECONDS).status_code == 202
    assert hands.queued() == 4


def test_a_deadline_that_nobody_could_meet_is_said_to_be_too_close(start: Start) -> None:
    refused = post(start(), deadline_seconds=0.5 * SECONDS)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "deadline_seconds"
    assert "takes about 2.0 seconds" in refused.json()["detail"]


def test_what_can_never_fit_is_refused_with_the_largest_size_that_does(
    start: Start, hands: Hands
) -> None:
    hands.serve(speed=SPEED.model_copy(update={"largest_pixels": 200 * 200}))
    client = start()
    assert post(client, width=192, height=192).status_code == 202
    refused = post(client, width=512, height=256)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "width"
    assert "the largest size of this shape that fits is 256x128" in refused.json()["detail"]
    assert post(client, width=256, height=128).status_code == 202
    hands.serve(name="larger")
    assert post(start(), width=512, height=256).status_code == 202


@pytest.fixture
def submit(server: RedisServer, hands: Hands) -> Any:
    """Submits for an owner on terms of its own; answers the error, where there is one."""

    def submit(owner: str, terms: Terms, spec: AnySpec | None = None, work: float = 1.0) -> Any:
        async def act() -> Any:
            broker = Broker(server.url, retention_seconds=RETENTION)
            try:
                made, _ = await broker.submit(
                    spec or a_spec(), owner=owner, works=(work,), terms=terms
                )
                return made
            except DarkroomError as error:
                return error
            finally:
                await broker.close()

        return asyncio.run(act())

    return submit


def test_a_greedy_owner_does_not_make_the_queue_too_long_for_others(submit: Any) -> None:
    terms = Terms(max_seconds=10)
    greedy = [submit("greedy", terms) for _ in range(14)]
    assert [isinstance(answer, QueueFull) for answer in greedy] == [False] * 11 + [True] * 3
    small = submit("small", terms)
    assert (small.place.ahead, small.place.seconds) == (0, 0)


def test_owners_share_the_number_that_may_wait(submit: Any) -> None:
    terms = Terms(waiting=4)
    greedy = [submit("greedy", terms) for _ in range(5)]
    assert isinstance(greedy[-1], QueueFull)
    small = [submit("small", terms) for _ in range(3)]
    assert [isinstance(answer, QueueFull) for answer in small] == [False, False, True]


@pytest.mark.parametrize(
    ("terms", "accepted", "words"),
    [
        (Terms(owner_living=2), 2, "2 of your generations are queued or running"),
        (Terms(owner_seconds=2.5), 2, "allows no more to wait"),
        (Terms(owner_daily=3.5), 3, "of drawing today"),
    ],
)
def test_a_key_has_what_it_may_have_and_no_more(
    submit: Any, terms: Terms, accepted: int, words: str
) -> None:
    answers = [submit("own", terms) for _ in range(accepted + 1)]
    assert not any(isinstance(answer, DarkroomError) for answer in answers[:-1])
    assert isinstance(answers[-1], QuotaExceeded)
    assert words in answers[-1].message
    assert answers[-1].retry_after >= 1
    assert not isinstance(submit("other", terms), DarkroomError)


def test_a_day_is_one_for_all_checkpoints(submit: Any, hands: Hands, redis: Redis) -> None:
    hands.serve("demo-xl")
    other = a_spec(checkpoint="demo-xl")
    terms = Terms(owner_daily=3.5)
    first, second, third = (submit("own", terms, spec) for spec in (None, other, other))
    assert isinstance(submit("own", terms), QuotaExceeded)
    assert isinstance(submit("own", terms, other), QuotaExceeded)
    for generation in (first, second, third):
        line.take(redis, keys.line(generation.checkpoint), generation.id)
    assert isinstance(submit("own", terms), QuotaExceeded), "it counts when it is drawn, too"
    assert not redis.exists(f"{keys.WAITS}own")


def test_what_has_ended_counts_no_more_but_what_was_drawn_counts_all_day(
    submit: Any, redis: Redis, hands: Hands
) -> None:
    terms = Terms(owner_living=1, owner_daily=2.5)
    first = submit("own", terms)
    assert isinstance(submit("own", terms), QuotaExceeded)
    line.take(redis, keys.line("demo"), first.id)
    hands.begin(first.id)
    hands.succeed(first.id)
    assert redis.scard(keys.living("own")) == 0
    second = submit("own", terms)
    hands.begin(second.id)
    line.take(redis, keys.line("demo"), second.id)
    hands.succeed(second.id)
    over = submit("own", terms)
    assert isinstance(over, QuotaExceeded)
    assert over.retry_after <= keys.DAY_SECONDS


def test_each_who_is_refused_is_promised_another_moment(submit: Any, hands: Hands) -> None:
    hands.serve(name="another")
    terms = Terms(max_seconds=1)
    for _ in range(3):
        submit("own", terms)
    told = [submit("own", terms).retry_after for _ in range(5)]
    # Two workers draw two seconds of work in one: so far apart is what they can take.
    assert told == pytest.approx([1.0, 1.0, 1.5, 2.0, 2.5], abs=0.2)


def test_who_comes_back_as_told_is_let_in_before_who_was_not(submit: Any, redis: Redis) -> None:
    first, second = (Terms(max_seconds=4, like=name) for name in ("first", "second"))
    waiting = [submit("own", first) for _ in range(5)]
    told = [submit("own", terms).retry_after for terms in (first, second)]
    assert told == pytest.approx([1.0, 2.0], abs=0.1)
    line.take(redis, keys.line("demo"), waiting[0].id)
    redis.lrem("rq:queue:demo", 1, waiting[0].id)
    assert isinstance(submit("own", Terms(max_seconds=4, like="new")), QueueFull)
    assert isinstance(submit("own", first), QueueFull), "it comes before its time"
    redis.lset("darkroom:line:demo:promise:own:first", 0, str(time.time()))
    assert not isinstance(submit("own", first), DarkroomError)


def test_a_time_to_come_back_counts_all_workers(submit: Any, hands: Hands) -> None:
    for name in ("second", "third", "fourth"):
        hands.serve(name=name)
    for _ in range(12):
        submit("own", Terms())
    late = submit("own", Terms(latest_seconds=1))
    assert late.retry_after == pytest.approx(2.0)
    own = submit("own", Terms(owner_seconds=9))
    assert own.retry_after == pytest.approx(1.0)
    submit("other", Terms())
    own = submit("own", Terms(owner_seconds=5))
    assert own.retry_after == pytest.approx(4.0)


def test_what_refusals_leave_behind_is_bounded_and_goes(submit: Any, redis: Redis) -> None:
    for _ in range(4):
        submit("own", Terms(), work=900.0)
    told = [submit("own", Terms(max_seconds=1, like=str(n)), work=900.0) for n in range(6)]
    assert told[-1].retry_after == 3600
    promises = list(redis.scan_iter("darkroom:line:demo:promise:*"))
    assert len(promises) == 1
    told = submit("small", Terms(max_seconds=1, like="x"))
    assert not isinstance(told, QueueFull)
    left: Any = [*promises, "darkroom:line:demo:promised"]
    assert all(0 < redis.ttl(key) <= 3660 for key in left)


def test_half_of_the_room_is_for_all_however_much_was_promised(submit: Any, redis: Redis) -> None:
    waiting = [submit("own", Terms(max_seconds=4)) for _ in range(5)]
    for number in range(20):
        submit("own", Terms(max_seconds=4, like=str(number)))
    for generation in waiting[:3]:
        line.take(redis, keys.line("demo"), generation.id)
        redis.lrem("rq:queue:demo", 1, generation.id)
    answers = [submit("own", Terms(max_seconds=4, like="new")) for _ in range(2)]
    assert [isinstance(answer, QueueFull) for answer in answers] == [False, True]


def test_a_deadline_counts_what_others_have_ahead_in_turns_only(submit: Any) -> None:
    for _ in range(10):
        submit("greedy", Terms())
    hurried = Terms(latest_seconds=2.0)
    assert isinstance(submit("greedy", hurried), DeadlineUnmeetable)
    assert not isinstance(submit("small", hurried), DarkroomError)


def test_usage_tells_what_is_queued_running_and_drawn_today(
    start: Start, hands: Hands, redis: Redis
) -> None:
    client = start()
    first, _ = post(client).json()["id"], post(client)
    line.take(redis, keys.line("demo"), first)
    hands.begin(first)
    used = client.get("/v1/usage").json()
    assert used["account"]["name"] == "local"
    assert set(used["limits"].values()) == {None}
    assert (used["generations"], used["daily_seconds"]) == (2, SECONDS)
    assert used["queued_seconds"] == {"demo": SECONDS}
    hands.succeed(first)
    assert client.get("/v1/usage").json()["generations"] == 1


def test_answers_tell_what_is_left_of_what_a_key_may_have(
    start: Start, hands: Hands, redis: Redis
) -> None:
    key = key_of(redis, max_concurrent=2, daily_seconds=5.0)
    client = start()
    wait_until(lambda: client.get("/v1/queue").status_code == 401)
    client.headers.update(bearer(key))
    left = [post(client).headers["ratelimit"] for _ in range(2)]
    assert left[0].startswith('"generations";r=1, "daily-seconds";r=3;t=')
    assert left[1].startswith('"generations";r=0, "daily-seconds";r=1;t=')
    refused = post(client)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/v1/usage").json()["limits"]["generations"] == 2


def test_what_an_earlier_version_has_ended_does_not_count(submit: Any, redis: Redis) -> None:
    terms = Terms(owner_living=2)
    ended, forgotten = submit("own", terms), submit("own", terms)
    redis.hset(keys.generation(ended.id), "status", "succeeded")
    assert not isinstance(submit("own", terms), DarkroomError)
    redis.delete(keys.generation(forgotten.id))
    assert not isinstance(submit("own", terms), DarkroomError)
    assert isinstance(submit("own", terms), QuotaExceeded)


def test_what_is_just_being_claimed_still_waits_so_promises_hold(submit: Any, redis: Redis) -> None:
    terms = Terms(max_seconds=1)
    first = submit("own", terms)
    submit("own", terms)
    told = [submit("own", terms).retry_after for _ in range(2)]
    redis.lrem("rq:queue:demo", 1, first.id)
    told += [submit("own", terms).retry_after for _ in range(2)]
    assert told == pytest.approx([1.0, 2.0, 3.0, 4.0], abs=0.2)


def test_a_worker_that_is_slow_at_the_moment_makes_no_deadline_impossible(
    start: Start, hands: Hands
) -> None:
    hands.serve(speed=SPEED.model_copy(update={"drift": 3.0}))
    client = start()
    hurried = post(client, deadline_seconds=1.5 * SECONDS)
    assert (hurried.status_code, hurried.json()["eta_seconds"]) == (202, 3 * SECONDS)
    assert post(client, deadline_seconds=1.5 * SECONDS).json()["code"] == "deadline_unmeetable"


def test_where_nothing_waits_any_more_earlier_promises_keep_nobody_out(
    submit: Any, redis: Redis
) -> None:
    terms = Terms(max_seconds=4, like="one of many")
    waiting = [submit("own", terms) for _ in range(5)]
    for _ in range(30):
        submit("own", terms)
    for generation in waiting:
        line.take(redis, keys.line("demo"), generation.id)
        redis.lrem("rq:queue:demo", 1, generation.id)
    answers = [submit("own", Terms(max_seconds=4, like="new")) for _ in range(5)]
    assert not any(isinstance(answer, DarkroomError) for answer in answers)


def test_a_chain_counts_whole_for_the_day(start: Start, hands: Hands, redis: Redis) -> None:
    key = key_of(redis, daily_seconds=3.0)
    client = start()
    wait_until(lambda: client.get("/v1/queue").status_code == 401)
    client.headers.update(bearer(key))
    refused = post(client, hires={"scale": 2, "num_inference_steps": 50})
    assert refused.status_code == 422
    assert "your key has 3 a day" in refused.json()["detail"]
    assert post(client).status_code == 202
    assert post(client).json()["code"] == "quota_exceeded"
