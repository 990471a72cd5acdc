"""Pictures that the server keeps no more are shown as that, at their time, and not asked for."""

from __future__ import annotations

import time

import httpx
import pytest
from playwright.sync_api import Page, expect

from server.broker import keys
from tests.api.house import RETENTION, Hands
from tests.api.pictures import picture
from tests.browser.conftest import Visit
from tests.browser.hands import PROMPT, draw, newest, told

HOUR, DAY = 3600, 86_400


def drawn(page: Page, hands: Hands, url: str) -> str:
    """A picture on the easel; its id."""
    with page.expect_response("**/v1/generations"):
        draw(page)
    id = str(newest(url)["id"])
    hands.succeed(id, picture(128, 128))
    page.wait_for_selector(".frame.developed .shot img")
    settled(page)
    return id


def settled(page: Page) -> None:
    """Until nothing is asked any more: an answer would say that our clock is wrong."""
    told(page, "#prompt-count", "7 / 75 tokens")


def keep(hands: Hands, id: str, seconds: float) -> None:
    """Let the server keep it for so long."""
    hands.redis.hset(keys.generation(id), "expires_at", repr(time.time() + seconds))


@pytest.fixture
def page(visitor: Visit, atelier: tuple[httpx.Client, Hands]) -> Page:
    """An empty house, and a clock that the test can put forward."""
    _, hands = atelier
    hands.redis.flushall()
    hands.serve("any", name="any")
    visitor.page.clock.install()
    return visitor.open()


def test_what_expires_is_shown_as_that_and_can_be_drawn_again(
    page: Page, atelier: tuple[httpx.Client, Hands]
) -> None:
    client, hands = atelier
    id = drawn(page, hands, str(client.base_url))
    keep(hands, id, 0)
    assert client.get(f"/v1/generations/{id}/images/0").status_code == 410
    page.clock.fast_forward((RETENTION - 60) * 1000)
    expect(page.locator(".tile img")).to_be_visible()
    page.clock.fast_forward(2 * 60_000)
    told(page, "#frame", "Expired")
    told(page, "#frame", "It was kept until")
    told(page, ".tile.expired", "Expired")
    expect(page.locator("main img, #easel-foot a")).to_have_count(0)
    told(page, "#announcer", "A picture has expired")

    page.fill("#prompt", "something else")
    page.locator("#frame").get_by_role("button", name="Reuse settings").click()
    assert page.input_value("#prompt") == PROMPT
    drawn(page, hands, str(client.base_url))
    page.locator(".tile.expired").click()
    told(page, "#frame", "Expired")
    page.locator("#frame").get_by_role("button", name="Delete").click()
    page.locator("#frame").get_by_role("button", name="Really delete").click()
    expect(page.locator(".tile")).to_have_count(1)


def test_a_picture_that_expires_while_it_is_open_is_closed(
    page: Page, atelier: tuple[httpx.Client, Hands]
) -> None:
    client, hands = atelier
    drawn(page, hands, str(client.base_url))
    page.click(".frame .shot")
    expect(page.locator("#detail")).to_be_visible()
    page.clock.fast_forward((RETENTION + 60) * 1000)
    told(page, ".notice", "The picture that was open has expired")
    expect(page.locator("#detail")).to_be_hidden()
    told(page, "#frame", "Expired")


@pytest.mark.parametrize("ahead", [-HOUR, HOUR])
def test_it_is_the_clock_of_the_server_that_counts(
    visitor: Visit, atelier: tuple[httpx.Client, Hands], ahead: int
) -> None:
    client, hands = atelier
    hands.redis.flushall()
    hands.serve("any", name="any")
    visitor.page.clock.install(time=time.time() + ahead)
    page = visitor.open()
    drawn(page, hands, str(client.base_url))
    expect(page.locator(".tile img")).to_be_visible()
    page.clock.fast_forward((RETENTION + 60) * 1000)
    told(page, ".tile", "Expired")


def test_what_is_kept_for_longer_than_timers_run_is_shown_as_long(
    visitor: Visit, atelier: tuple[httpx.Client, Hands], page: Page
) -> None:
    client, hands = atelier
    keep(hands, drawn(page, hands, str(client.base_url)), 40 * DAY)
    visitor.open()
    settled(page)
    expect(page.locator(".tile img")).to_be_visible()
    page.clock.fast_forward(39 * DAY * 1000)
    expect(page.locator(".tile img")).to_be_visible()
    page.clock.fast_forward(2 * DAY * 1000)
    told(page, ".tile", "Expired")
