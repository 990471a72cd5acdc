"""What is offered is what the checkpoints of the workers can do: depth, upscaling, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from redis import Redis

from tests.api.house import Hands, gateway
from tests.api.pictures import CARDS, picture
from tests.browser.conftest import PATIENCE_MS, WINDOW, Visit
from tests.browser.hands import draw, told
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def atelier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Hands]]:
    """A gateway whose cards offer every task, and somebody who plays its workers."""
    folder = tmp_path_factory.mktemp("atelier")
    (folder / "cards.toml").write_text(CARDS)
    server = RedisServer()
    server.start()
    with (
        Redis.from_url(server.url) as redis,
        gateway(server.url, folder, catalog=folder / "cards.toml") as client,
    ):
        yield client, Hands(redis, folder)
    server.close()


@pytest.fixture
def visitor(browser: Browser, atelier: tuple[httpx.Client, Hands]) -> Iterator[Visit]:
    with browser.new_context(**WINDOW) as context:
        context.set_default_timeout(PATIENCE_MS)
        visit = Visit(context.new_page(), str(atelier[0].base_url).rstrip("/"))
        yield visit
        visit.check()


def offered(page: Page, selector: str) -> list[str]:
    return [str(option.get_attribute("value")) for option in page.locator(selector).all()]


def test_only_what_a_worker_serves_can_be_chosen(
    visitor: Visit, atelier: tuple[httpx.Client, Hands], tmp_path: Path
) -> None:
    client, hands = atelier
    hands.serve("any", name="any")
    page = visitor.open()
    assert offered(page, "#checkpoint option") == ["any"]
    assert "depth-to-image" in offered(page, "#tasks input")
    expect(page.locator("#upscaler-part")).to_be_hidden()

    hands.serve("x4", name="x4")
    page = visitor.open()
    assert offered(page, "#checkpoint option") == ["any", "x4"]
    assert offered(page, "#upscaler option") == ["", "x4"]
    page.select_option("#checkpoint", "x4")
    assert offered(page, "#tasks input") == ["upscale"]
    expect(page.locator("#size-part")).to_be_hidden()
    expect(page.locator("#upscaler-part")).to_be_hidden()
    assert page.input_value("#noise_level") == "20"
    assert page.input_value("#num_inference_steps") == "75"

    source = tmp_path / "source.png"
    source.write_bytes(picture(128, 128))
    page.set_input_files("#source", source)
    draw(page, "sharper", noise_level=40)
    told(page, "#easel-foot", "Waiting")
    spec = client.get("/v1/generations").json()["generations"][0]["spec"]
    assert (spec["task"], spec["noise_level"], spec["width"]) == ("upscale", 40, 512)


def test_depth_takes_a_picture_and_a_chain_ends_with_the_upscaler(
    visitor: Visit, atelier: tuple[httpx.Client, Hands], tmp_path: Path
) -> None:
    client, hands = atelier
    hands.serve("any", name="any")
    hands.serve("x4", name="x4")
    page = visitor.open()
    page.check("[name=task][value=depth-to-image]", force=True)
    assert page.input_value("#strength") == "0.75"
    page.click("#draw")
    told(page, "[data-field=image] .fault", "Choose the picture to start from")
    source = tmp_path / "source.png"
    source.write_bytes(picture(128, 128))
    page.set_input_files("#source", source)
    page.select_option("#upscaler", "x4")
    draw(page, "a room")
    told(page, "#easel-foot", "Waiting")
    spec = client.get("/v1/generations").json()["generations"][0]["spec"]
    assert (spec["task"], spec["strength"]) == ("depth-to-image", 0.75)
    assert spec["upscaler"]["checkpoint"] == "x4"


def test_who_comes_before_the_workers_is_told_when_one_is_ready(
    visitor: Visit, atelier: tuple[httpx.Client, Hands]
) -> None:
    _, hands = atelier
    hands.redis.flushall()
    page = visitor.open()
    told(page, ".notice", "No worker is ready yet")
    hands.serve("any", name="any")
    expect(page.locator(".notice")).to_have_count(0)
    assert offered(page, "#checkpoint option") == ["any"]
