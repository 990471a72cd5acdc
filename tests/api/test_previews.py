from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from redis import Redis

from server.broker import keys, previews
from server.spec import GenerationState
from tests.api.house import Hands
from tests.api.pictures import body, picture
from tests.api.test_events import follow

Submit = Callable[..., str]
Start = Callable[..., httpx.Client]

CAREFUL = """
[checkpoints.careful]
extends = "demo"
tasks = ["text-to-image", "image-to-image"]
safety = "blur"

[checkpoints.flagging]
extends = "demo"
safety = "flag"
"""


@pytest.fixture
def drawn(hands: Hands, submit: Submit) -> str:
    """A generation that a worker draws."""
    id = submit(num_images=2, previews=3)
    hands.begin(id)
    return id


def preview(client: httpx.Client, id: str, index: int = 0) -> httpx.Response:
    return client.get(f"/v1/generations/{id}/images/{index}/preview")


def test_a_picture_is_shown_while_it_is_drawn(
    client: httpx.Client, hands: Hands, drawn: str
) -> None:
    assert hands.show(drawn, b"JPEG")
    answer = preview(client, drawn)
    assert (answer.status_code, answer.content) == (200, b"JPEG")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert preview(client, drawn, 1).status_code == 404


def test_the_newest_preview_takes_the_place_of_the_one_before(
    client: httpx.Client, hands: Hands, drawn: str
) -> None:
    hands.show(drawn, b"first")
    hands.show(drawn, b"second", number=2)
    assert preview(client, drawn).content == b"second"


def test_an_event_tells_of_it_and_where_it_is(
    client: httpx.Client, hands: Hands, drawn: str
) -> None:
    hands.show(drawn, b"JPEG", index=1, number=2)
    address = f"/v1/generations/{drawn}/images/1/preview"
    hands.succeed(drawn)
    [told] = [event["data"] for event in follow(client, drawn) if event["event"] == "preview"]
    assert told == {"index": 1, "number": 2, "url": address}
    assert client.get(told["url"]).content == b"JPEG"


def test_a_preview_is_kept_for_a_short_time(redis: Redis, hands: Hands, drawn: str) -> None:
    hands.show(drawn, b"JPEG")
    assert 0 < redis.ttl(keys.preview(drawn, 0)) <= previews.KEPT_SECONDS  # type: ignore[operator]


def test_nothing_is_shown_of_what_has_ended(client: httpx.Client, hands: Hands, drawn: str) -> None:
    hands.end(drawn, GenerationState.CANCELED)
    told = follow(client, drawn)
    assert not hands.show(drawn, b"JPEG")
    assert preview(client, drawn).status_code == 404
    assert follow(client, drawn) == told


def test_nothing_is_shown_by_who_has_lost_the_job(
    client: httpx.Client, redis: Redis, hands: Hands, drawn: str
) -> None:
    hands.show(drawn, b"of the holder")
    assert not previews.show(redis, drawn, "e0", b"of another", index=0, number=2)
    assert preview(client, drawn).content == b"of the holder"


def test_a_preview_goes_when_its_generation_is_deleted(
    client: httpx.Client, redis: Redis, hands: Hands, drawn: str
) -> None:
    hands.show(drawn, b"JPEG", index=1)
    hands.succeed(drawn)
    assert client.delete(f"/v1/generations/{drawn}").status_code == 204
    assert preview(client, drawn, 1).status_code == 410
    assert not redis.exists(keys.preview(drawn, 1))


def test_what_was_never_submitted_has_no_preview(client: httpx.Client) -> None:
    assert preview(client, f"gen_{32 * '0'}").status_code == 404


def test_nothing_is_shown_unless_it_is_asked_for(client: httpx.Client, submit: Submit) -> None:
    record = client.get(f"/v1/generations/{submit()}").json()
    assert record["spec"]["previews"] == 0


@pytest.mark.parametrize("previews", [-1, 11, 1.5, True])
def test_more_previews_than_ten_are_refused(client: httpx.Client, previews: float) -> None:
    answer = client.post("/v1/generations", json={"prompt": "a circle", "previews": previews})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "previews")


def test_every_stage_of_a_chain_may_show_its_pictures(atelier: httpx.Client) -> None:
    sent = body(task="image-to-image", image=picture(), previews=2, upscaler={"checkpoint": "x4"})
    record = atelier.post("/v1/generations", json=sent).json()
    assert (record["spec"]["previews"], record["warnings"]) == (2, [])


@pytest.fixture
def careful(start: Start, hands: Hands, tmp_path: Path) -> httpx.Client:
    """Of a gateway with a checkpoint that shows nothing unchecked."""
    (tmp_path / "cards.toml").write_text(CAREFUL)
    for checkpoint in ("careful", "flagging"):
        hands.serve(checkpoint, name=checkpoint)
    return start(catalog=tmp_path / "cards.toml")


@pytest.mark.parametrize(
    "chain",
    [{"checkpoint": "careful"}, {"checkpoint": "demo", "refiner": {"checkpoint": "careful"}}],
)
def test_nothing_is_shown_that_a_safety_checker_may_hide(
    careful: httpx.Client, chain: dict[str, object]
) -> None:
    sent = {"prompt": "a circle", "previews": 3} | chain
    record = careful.post("/v1/generations", json=sent).json()
    [warning] = record["warnings"]
    assert (warning["code"], warning["field"]) == ("previews_ignored", "previews")
    assert "careful shows no picture before its safety checker has seen it" in warning["message"]
    assert record["spec"]["previews"] == 0
    strict = careful.post("/v1/generations", json=sent | {"strict": True})
    assert strict.status_code == 422


def test_a_checker_that_only_flags_hides_nothing(careful: httpx.Client) -> None:
    sent = {"prompt": "a circle", "previews": 3, "checkpoint": "flagging"}
    record = careful.post("/v1/generations", json=sent).json()
    assert (record["spec"]["previews"], record["warnings"]) == (3, [])
